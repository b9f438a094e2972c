"""A store whose answers fail at random."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from .location import Location
from .proxy import CutBody, CutRequest, LateAnswer, LoseAnswer, Proxy, Status

SHARE = 0.1
"""Of the requests, this part fails."""


@contextmanager
def failing(location: Location, seed: int) -> Iterator[Location]:
    """The replica `location` in S3, by a way on which requests are refused, cut off, late, or done without an answer."""
    chance = random.Random(seed)
    proxy = Proxy(urlsplit(location.settings["endpoint"]).port)

    def fault(_):
        if chance.random() >= SHARE:
            return None
        return chance.choice([Status(503), LoseAnswer(), CutRequest(chance.randrange(2000)), CutBody(chance.randrange(2000)),
                              LateAnswer(chance.random() / 2)])

    proxy.fault = fault
    try:
        yield location.at(proxy.endpoint)
    finally:
        proxy.close()
