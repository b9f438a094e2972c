"""A bucket that only appends, by an object lock or by credentials: retention deletes nothing there.

An operator has README's query as a health check. It is no failure that a store refuses what it is set up to refuse: a container
that is started anew because of it would be, again and again.
"""

from harness.proxy import Status
from harness.sql import fill, insert, status, sync
from harness.wait import until

HEALTH = "SELECT coalesce(min(last_error IS NULL AND lag < 60), 0) FROM litestream_status WHERE role IS NOT NULL"
REFUSED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


def test_a_store_that_refuses_to_delete_is_healthy(start, through_proxy, in_s3, proxy, tmp_path):
    def is_deletion(request) -> bool:
        return request.method == "DELETE" or "?delete" in request.target

    proxy.fault = lambda request: Status(403, REFUSED) if is_deletion(request) else None
    db = start("python", through_proxy).open(through_proxy.primary(
        tmp_path / "app.db", levels="1s,2s", snapshot_interval="2s", snapshot_retention="1s", l0_retention="1s"))
    fill(db)

    def is_refused() -> bool:
        insert(db)
        sync(db)
        assert db.one(HEALTH) == 1
        return "cannot be deleted" in status(db)

    until(is_refused, 60, "a deletion")
    count = len(in_s3.files())
    for _ in range(5):
        insert(db)
        sync(db)
        assert db.one(HEALTH) == 1
    assert len(in_s3.files()) > count
