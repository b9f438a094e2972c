"""The store takes a file and answers only after we have given up on the answer (30 s without a byte).

What landed is recognised as ours: it is not written twice, not under another TXID, and nothing is missing.
"""

import pytest

from harness import outage
from harness.proxy import LateAnswer
from harness.sql import fill, insert, sync

OUR_PATIENCE = 30


@pytest.mark.slow
def test_an_answer_after_our_timeout(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="50ms"))
    fill(db)
    sync(db)
    late = []

    def first_put(request):
        if request.method == "PUT" and not late:
            late.append(request)
            return LateAnswer(OUR_PATIENCE + 5)
        return None

    proxy.fault = first_put
    insert(db)
    assert outage.work(db, 300) < 1
    outage.assert_caught_up(db, in_s3, tmp_path, 90)
    assert late and set(proxy.stored().values()) == {1}
