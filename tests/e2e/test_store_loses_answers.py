"""Answers to PUTs that landed are lost: the connection breaks after the store has the file.

The next attempt finds the file there, recognises it as ours by what is in it, and goes on. Each object is written once.
"""

import itertools

from harness import outage
from harness.proxy import LoseAnswer
from harness.sql import fill, insert, sync


def test_every_second_answer_is_lost(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="20ms"))
    puts = itertools.count()
    proxy.fault = lambda request: LoseAnswer() if request.method == "PUT" and next(puts) % 2 == 0 else None
    fill(db)
    for _ in range(20):
        insert(db, rows=5)
        sync(db, 30)
    assert outage.work(db) < 1
    outage.assert_caught_up(db, in_s3, tmp_path)
    assert len(proxy.stored()) > 20 and set(proxy.stored().values()) == {1}
