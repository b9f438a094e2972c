"""What the command line ends with."""

from __future__ import annotations

import enum
import sqlite3


class Exit(enum.IntEnum):
    """A number that the process ends with. Litestream knows 0 and 1; walrust has these."""

    WELL = 0
    GENERAL = 1
    CONFIGURATION = 2
    FILE = 3
    STORE = 4
    INTEGRITY = 5
    RESTORE = 6

    @classmethod
    def of(cls, error: sqlite3.Error) -> Exit:
        """What says why a function failed: GENERAL before Python 3.11, whose errors do not have their result codes."""
        code = getattr(error, "sqlite_errorcode", 0)
        number = (code >> 8) - _FIRST_OF_FUNCTIONS
        return _BY_NUMBER.get(number, cls.GENERAL) if code & 0xFF == _SQLITE_ERROR else cls.GENERAL


_SQLITE_ERROR = 1
_FIRST_OF_FUNCTIONS = 0x80
"""The result code of a function that fails is `SQLITE_ERROR | (0x80 + number) << 8`; `docs/sql.md` lists the numbers."""

_BY_NUMBER = {
    1: Exit.CONFIGURATION,
    2: Exit.RESTORE,  # not found
    3: Exit.FILE,  # exists already
    4: Exit.STORE,  # denied
    5: Exit.STORE,  # cannot be reached
    6: Exit.STORE,  # takes too long
    7: Exit.STORE,  # answers wrongly
    8: Exit.INTEGRITY,  # damaged
    9: Exit.FILE,  # no database
    12: Exit.FILE,  # read-only
    13: Exit.FILE,  # in use
    14: Exit.FILE,  # no space
    15: Exit.FILE,  # the operating system
    16: Exit.STORE,  # no such bucket
}
