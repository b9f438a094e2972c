"""The store refuses us: 403, because somebody changed a policy or a key. The application works on; status and
`litestream_sync` say what is denied, without the secret; when access is given back, replication goes on by itself.
"""

import pytest

from harness import outage
from harness.proxy import Status
from harness.s3 import SECRET_KEY
from harness.sql import fill, status, sync
from harness.wait import until
from harness.worker import SqlError


def test_access_is_denied_for_a_while(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    proxy.fault = lambda request: Status(403, outage.ACCESS_DENIED)
    assert outage.work(db) < 1
    until(lambda: "denied" in status(db).lower() or "403" in status(db), 15, "status says that access is denied")
    with pytest.raises(SqlError) as refused:
        sync(db, 0.5)
    assert SECRET_KEY not in str(refused.value) + status(db) + (tmp_path / "host.log").read_text()
    asked = len(proxy.requests)
    proxy.fault = lambda request: None
    outage.assert_caught_up(db, in_s3, tmp_path)
    assert asked < 40, "a store that refuses is asked less and less often"
    outage.assert_told(tmp_path, "fails", "works")
    assert set(proxy.stored().values()) == {1}
