"""The store comes and goes, again and again, while the application commits.

Whatever it was in the middle of, each object is written once, in order, and the log has one line for each change of state.
"""

from harness import outage
from harness.sql import fill, sync
from harness.wait import until


def test_a_store_that_comes_and_goes(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="20ms"))
    fill(db)
    sync(db)
    flaps = 6
    for flap in range(1, flaps + 1):
        proxy.refuse()
        assert outage.work(db, 60) < 1
        until(lambda: outage.changes(tmp_path).count("fails") == flap, 20, "the outage is noticed")
        proxy.accept()
        before = sum(proxy.stored().values())
        assert outage.work(db, 60) < 1
        until(lambda: sum(proxy.stored().values()) > before, 20, "something is written again")
        until(lambda: outage.changes(tmp_path).count("works") == flap, 20, "the recovery is noticed")
    outage.assert_caught_up(db, in_s3, tmp_path)
    outage.assert_told(tmp_path, *["fails", "works"] * flaps)
    assert set(proxy.stored().values()) == {1}
