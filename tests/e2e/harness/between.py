"""A VFS that runs a piece of Python in the middle of a checkpoint: after it has read the WAL index, before it copies.

For Python hosts whose `sqlite3` uses the system's library. The VFS is the library's default one but for one method of
its databases: SQLite calls `xUnfetch(0, NULL)` when a checkpoint reads an index that is not the one it knew.
"""

import ctypes
from collections.abc import Callable

MAIN_DB = 0x100
LIBRARY = ctypes.CDLL("libsqlite3.so.0")

_METHODS = ("xClose xRead xWrite xTruncate xSync xFileSize xLock xUnlock xCheckReservedLock xFileControl xSectorSize "
            "xDeviceCharacteristics xShmMap xShmLock xShmBarrier xShmUnmap xFetch xUnfetch").split()
Unfetch = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
Open = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int,
                        ctypes.POINTER(ctypes.c_int))


class IoMethods(ctypes.Structure):
    _fields_ = [("iVersion", ctypes.c_int), *((name, ctypes.c_void_p) for name in _METHODS)]


class File(ctypes.Structure):
    _fields_ = [("pMethods", ctypes.POINTER(IoMethods))]


class Vfs(ctypes.Structure):
    _fields_ = [("iVersion", ctypes.c_int), ("szOsFile", ctypes.c_int), ("mxPathname", ctypes.c_int),
                ("pNext", ctypes.c_void_p), ("zName", ctypes.c_char_p), ("pAppData", ctypes.c_void_p),
                ("xOpen", ctypes.c_void_p), ("others", ctypes.c_void_p * 17)]


class Between:
    """Registers the VFS `between` as the default one. Before the library under test is loaded, so that it stands on it."""

    def __init__(self) -> None:
        self.action: Callable[[], None] | None = None
        """Run once, in the next checkpoint that comes by."""
        find = LIBRARY.sqlite3_vfs_find
        find.restype = ctypes.POINTER(Vfs)
        self._base = find(None)
        self._vfs = Vfs.from_buffer_copy(self._base.contents)
        self._vfs.zName, self._vfs.pNext = b"between", None
        self._tables: dict[int, IoMethods] = {}
        self._open, self._unfetch = Open(self._on_open), Unfetch(self._on_unfetch)
        self._vfs.xOpen = ctypes.cast(self._open, ctypes.c_void_p)
        assert LIBRARY.sqlite3_vfs_register(ctypes.byref(self._vfs), 1) == 0

    def _on_open(self, vfs, name, file, flags, out_flags) -> int:
        code = Open(self._base.contents.xOpen)(vfs, name, file, flags, out_flags)
        if code == 0 and flags & MAIN_DB:
            opened = ctypes.cast(file, ctypes.POINTER(File)).contents
            theirs = ctypes.addressof(opened.pMethods.contents)
            if theirs not in self._tables:
                table = IoMethods.from_buffer_copy(opened.pMethods.contents)
                self._theirs = Unfetch(table.xUnfetch)
                table.xUnfetch = ctypes.cast(self._unfetch, ctypes.c_void_p)
                self._tables[theirs] = table
            opened.pMethods = ctypes.pointer(self._tables[theirs])
        return code

    def _on_unfetch(self, file, offset, place) -> int:
        if place is None and self.action:
            action, self.action = self.action, None
            action()
        return self._theirs(file, offset, place)
