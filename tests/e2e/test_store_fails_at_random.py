"""A store that fails at random - before, while or after a request landed - for 200 rounds, under load.

Each round publishes something while any request, LIST and HEAD and GET and PUT, may meet any fault. In the end source and
replica are identical, TXIDs have no gap, and each object was written once.
"""

import random
import threading

import pytest

from harness import outage
from harness.proxy import CutBody, CutRequest, LoseAnswer, Status
from harness.sql import fill, insert, sync

ROUNDS, SEED = 200, 20261


def faults(seed: int):
    chance = random.Random(seed)
    lock = threading.Lock()

    def fault(request):
        with lock:
            if chance.random() < 0.6:
                return None
            return chance.choice([
                Status(503, outage.SLOW_DOWN), Status(500), Status(403, outage.ACCESS_DENIED),
                CutRequest(chance.randrange(1 + request.body_size)), LoseAnswer(), CutBody(chance.randrange(200)),
            ])

    return fault


@pytest.mark.slow
def test_two_hundred_rounds(start, through_proxy, in_s3, proxy, tmp_path):
    worker = start("python", through_proxy, env=outage.logged(tmp_path))
    db = worker.open(through_proxy.primary(tmp_path / "app.db", sync_interval="10ms"))
    proxy.fault = faults(SEED)
    fill(db)
    chance = random.Random(SEED + 1)
    for number in range(ROUNDS):
        for _ in range(chance.randrange(1, 10)):
            insert(db, rows=chance.choice([1, 1, 5, 200]))
        if chance.random() < 0.1:
            db.run(f"PRAGMA wal_checkpoint({chance.choice(['PASSIVE', 'FULL', 'RESTART', 'TRUNCATE'])})")
        sync(db, 120)
    stored = proxy.stored()
    proxy.fault = lambda request: None
    outage.assert_caught_up(db, in_s3, tmp_path)
    assert len(stored) >= ROUNDS and set(proxy.stored().values()) == {1}
    # One line for each change of state.
    changes = outage.changes(tmp_path)
    assert all(a != b for a, b in zip(changes, changes[1:])), changes
    print(f"seed {SEED}, {ROUNDS} rounds: {len(proxy.requests)} requests, {len(stored)} objects")
