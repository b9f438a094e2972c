"""A machine that writes a sealed replica and has no identity: what it can read back, whatever happens to it.

A day's work in minutes: levels, snapshots and retention of seconds. The process is killed at each request of a cycle, before the
store sees it or when the store has done it and the answer is not here yet. Then somebody has all that is on the machine's disk,
and all that was ever sent to the bucket, deleted or not. He tries each 32 bytes of the state folder as the content key of each
file of late: what waits for a merge may open, else nothing. Beside him stands somebody who has the identity, restores, and looks for the
true keys in every file of that disk, the database among them.
"""

import json
import os
import random
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import ltx4, memory
from .location import NAME, Location
from .paths import ROOT
from .proxy import Fault, Proxy, Request, Rewrite, Status
from .recorded import digest
from .s3 import S3Server
from .sql import restore, sync
from .state import state_folder
from .wait import until
from .worker import Connection, HostDied, SqlError, Worker

KEY = json.loads((ROOT / "tests" / "golden" / "ltx4" / "keys.json").read_text())[0]
LEVELS = (1, 2, 4)
TOP, SNAPSHOT = len(LEVELS), 9
SETTINGS = dict(levels=",".join(f"{n}s" for n in LEVELS), snapshot_interval="2s", snapshot_retention="1s", l0_retention="1s",
                sync_interval="500ms", part_size="5MiB", close_timeout="60s", age_recipient=KEY["recipient"])
CYCLE = LEVELS[-1] + 0.5
"""Seconds in which a window of the highest level ends, and all else that comes again."""
RECENT = 200
"""Windows are tried on so many files that were sent last; the true keys of all are looked for."""
THOROUGH = 8
"""Each so many looks every window is tried: that takes as long as all else."""
BALLAST = 6_000_000  # a snapshot is more than one part
PAGE_SIZE = 65536

BEFORE, AFTER = "before it arrives", "before its answer does"
RESTART, STANDBY = "started again", "another process takes over"
KINDS = {
    "file of a commit": "it is sent, or found to be there; no transaction is missing",
    "merge": "it is made again under another key, or found; its inputs open no longer than until then",
    "snapshot": "it is made again, or found; its key was never here",
    "pack": "it is made again, or lacks; its key was never here",
    "deletion": "the rest is deleted",
    "listing": "nothing is lost",
    "reading": "nothing is lost",
}


def kind_of(request: Request) -> str:
    """What a request is for."""
    if request.method == "DELETE" or (request.method == "POST" and "delete" in request.target.partition("?")[2]):
        return "deletion"
    if request.method == "GET":
        return "listing" if request.kind == "LIST" else "reading"
    level = request.path.split("/")[3] if request.path.count("/") >= 4 else ""
    return {"0000": "file of a commit", "0009": "snapshot", "vfs": "pack"}.get(level, "merge" if level else "listing")


@dataclass(eq=False)
class Sealed:
    """A file as it was sent to the bucket, and its content key, which only the identity tells."""

    level: int
    min: int
    max: int
    key: bytes
    blocks: list[int]
    """Those of which Poly1305 makes the tag of its index."""
    tag: int
    landed: bool = False

    @classmethod
    def of(cls, level: int, name: re.Match, data: bytes) -> "Sealed":
        key = ltx4.content_key(data, bytes.fromhex(KEY["private_hex"]))
        _, start, end = ltx4._index(data)
        bound = data[start:end]
        message = bound + bytes(-len(bound) % 16) + len(bound).to_bytes(8, "little") + bytes(8)
        blocks = [int.from_bytes(message[at:at + 16] + b"\1", "little") for at in range(0, len(message), 16)]
        return cls(level, int(name[1], 16), int(name[2], 16), key, blocks, int.from_bytes(data[end:end + 16], "little"))

    def __str__(self) -> str:
        return f"level {self.level}, {self.min:x}-{self.max:x}" + ("" if self.landed else ", which never arrived")

    def is_tag_of(self, r: int, s: int) -> bool:
        """Whether Poly1305 with this one-time key gives the tag of its index."""
        total = 0
        for block in self.blocks:
            total = (total + block) * r % ((1 << 130) - 5)
        return (total + s) & (1 << 128) - 1 == self.tag

    def secrets(self) -> list[bytes]:
        """What opens it, or pages of it."""
        return [self.key, ltx4._expand(self.key, b"ltx-page-key"), ltx4._expand(self.key, b"ltx-index-key")]


class Archive:
    """All that was ever sent to the bucket, whether or not it arrived, and what became of it there."""

    def __init__(self, location: Location):
        self.location = location
        self.files: list[Sealed] = []
        self.merges: list[Sealed] = []
        """Those that arrived, in that order."""
        self._known: dict[tuple[int, str, bytes], Sealed] = {}
        self._lock = threading.Lock()

    def sees(self, request: Request) -> None:
        """Before a request is passed on: all that is in the bucket then, and what comes with it."""
        self.look()
        match = NAME.fullmatch(request.path.rpartition("/")[2])
        if request.method == "PUT" and match and request.body[:4] == b"LTX4" and "uploadId" not in request.target:
            self._add(int(request.path.split("/")[3]), match, request.body, landed=False)
        request.body = b""

    def look(self) -> None:
        for file in self.location.files():
            try:
                with file.path.open("rb") as f:
                    head = f.read(180)
                    if (known := self._known.get((file.level, file.path.name, head))) and known.landed:
                        continue
                    self._add(file.level, NAME.fullmatch(file.path.name), head + f.read(), landed=True)
            except FileNotFoundError:
                pass  # It was deleted meanwhile, and looked at before: what is deleted was there for a while.

    def _add(self, level: int, name: re.Match, data: bytes, landed: bool) -> None:
        assert data[:4] == b"LTX4", f"{name[0]} is not sealed"
        with self._lock:
            place = (level, name[0], data[:180])
            if place not in self._known:
                self._known[place] = Sealed.of(level, name, data)
                self.files.append(self._known[place])
            file = self._known[place]
            if landed and not file.landed:
                file.landed = True
                if 0 < level < SNAPSHOT:
                    self.merges.append(file)

    def merged_into(self, file: Sealed) -> Sealed | None:
        """The file of the next level that has it."""
        return next((m for m in self.merges if m.level == file.level + 1 and m.min <= file.min and file.max <= m.max), None)

    def there(self) -> dict[Sealed, Path]:
        """Those that are in the bucket now."""
        paths = {(file.level, file.min, file.max): file.path for file in self.location.files()}
        return {file: paths[place] for file in self.files if file.landed and (place := (file.level, file.min, file.max)) in paths}


def content(path: Path) -> bytes:
    """What a file has; nothing if it is none, or was deleted meanwhile."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""


class Thief:
    """Has the disk of the machine, and tries each 32 bytes of its state folder as the key of each file of the archive."""

    def __init__(self, archive: Archive):
        self.archive = archive
        self.tried = 0
        self._keys: dict[bytes, tuple[int, int]] = {}
        self._done: dict[bytes, int] = {}
        self._found: dict[bytes, list[Sealed]] = {}

    def opens(self, folder: Path) -> set[Sealed]:
        """Files that he opens. What is itself a sealed file there is not taken for keys."""
        windows = set()
        for path in folder.rglob("*"):
            data = content(path)
            if data[:4] != b"LTX4":
                windows |= {data[at:at + 32] for at in range(len(data) - 31)}
        # Of 32 random bytes fewer than 20 different ones are never met.
        windows = {window for window in windows if len(set(window)) >= 20}
        for gone in self._keys.keys() - windows:
            del self._keys[gone], self._done[gone], self._found[gone]
        files = list(self.archive.files)
        for window in windows:
            if window not in self._keys:
                one_time = ltx4._block(ltx4._expand(window, b"ltx-index-key"), 0, b"ltx-idx-auth")
                r = int.from_bytes(one_time[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
                self._keys[window], self._done[window], self._found[window] = (r, int.from_bytes(one_time[16:32], "little")), max(0, len(files) - RECENT), []
            self._found[window] += [file for file in files[self._done[window]:] if file.is_tag_of(*self._keys[window])]
            self.tried += len(files) - self._done[window]
            self._done[window] = len(files)
        return {file for window in windows for file in self._found[window]}

    def has_keys_of(self, folder: Path) -> set[Sealed]:
        """The same, as who knows the true keys sees it: at once."""
        state = b"".join(content(path) for path in folder.rglob("*"))
        return {file for file in list(self.archive.files) if file.key in state}

    def has_true_keys_of(self, folder: Path) -> set[Sealed]:
        """Files whose key is anywhere on the disk: in the database, its WAL, waiting files; in the state folder also as text, and
        what is derived of it."""
        on_disk = [path for path in folder.rglob("*") if path.is_file()]
        everything = b"".join(content(path) for path in on_disk)
        state = b"".join(content(path) for path in on_disk if path.parent != folder)
        return {file for file in list(self.archive.files) if file.key in everything or
                any(form in state for secret in file.secrets() for form in memory.forms(secret).values())}


class Trap:
    """Kills a process at a request."""

    def __init__(self, archive: Archive):
        self.archive = archive
        self.passed = 0
        self.struck: str | None = None
        """What the request was for."""
        self.kinds: set[str] = set()
        self._at: int | str | None = None
        self._when, self._pid = "", 0
        self._lock = threading.Lock()

    def set(self, at: int | str | None, when: str, pid: int) -> None:
        """Kills process `pid` at request number `at` from now on, or at the first one for that; after one that gets no answer,
        at the next one that gets one."""
        with self._lock:
            self.struck, self.passed, self.kinds, self._at, self._when, self._pid = None, 0, set(), at, when, pid

    def __call__(self, request: Request) -> Fault | None:
        self.archive.sees(request)
        with self._lock:
            self.passed += 1
            kind = kind_of(request)
            self.kinds.add(kind)
            is_it = self._at == kind or (isinstance(self._at, int) and self.passed >= self._at)
            if self.struck or not is_it:
                return None
            pid = self._pid
        if self._when == BEFORE:
            self._strikes(pid, kind)
            return Status(500)
        return Rewrite(lambda answer: self._strikes(pid, kind) or answer)

    def _strikes(self, pid: int, kind: str) -> None:
        with self._lock:
            # Not for an answer to a process that is dead already.
            if self.struck is None and self._at is not None and self._pid == pid:
                self.struck = kind
                os.kill(pid, signal.SIGKILL)


class WriteOnly:
    """The machine, its replica, and who has the identity."""

    def __init__(self, seed: int, server: S3Server, location: Location, folder: Path, say: Callable[[str], None]):
        self.random, self.say, self.location = random.Random(seed), say, location
        self.proxy = Proxy(server.port)
        self.proxy.keeps_bodies = True
        self.archive = Archive(location)
        self.thief, self.trap = Thief(self.archive), Trap(self.archive)
        self.proxy.fault = self.trap
        self.machine, self.vault = folder / "machine", folder / "vault"
        for place in (self.machine, self.vault):
            place.mkdir()
        self.identity = self.vault / "key.txt"
        self.identity.write_text(KEY["identity"] + "\n")
        self.identity.chmod(0o600)
        self.keeper = Worker("python", env=location.env, cwd=self.vault)
        self.workers: list[Worker] = []
        self.states: dict[int, str] = {}
        self.serial = self.synced = self.looks = self.waiting = self.leftovers = 0
        self.owned_from = 0
        """Number in the archive of the first file whose key this machine has, if it has any."""
        self.table: Counter[tuple[str, str]] = Counter()
        db = self.open()
        db.run(f"PRAGMA page_size={PAGE_SIZE}", "PRAGMA journal_mode=WAL", "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, data TEXT)",
               "CREATE TABLE meta(serial INTEGER)", "CREATE TABLE ballast(data BLOB)", "INSERT INTO meta VALUES (0)",
               f"INSERT INTO ballast VALUES (randomblob({BALLAST}))")
        self.ballast = db.content().tables["ballast"]
        self.states[0] = digest(db)
        sync(db, 100)
        self.kill(db)

    @property
    def database(self) -> Path:
        return self.machine / "app.db"

    def uri(self, **settings) -> str:
        return self.location.at(self.proxy.endpoint).primary(self.database, **SETTINGS, **settings)

    def start(self) -> Worker:
        self.workers.append(Worker("python", env=self.location.env, cwd=self.machine))
        return self.workers[-1]

    def open(self, **settings) -> Connection:
        """A new process that has the database open."""
        return self.start().open(self.uri(**settings), timeout=60)

    def kill(self, *connections: Connection) -> None:
        """kill -9, wherever they are."""
        for connection in connections:
            connection.worker.kill()

    def end(self) -> None:
        for worker in [self.keeper, *self.workers]:
            if not worker.ended:
                worker.kill()
        self.proxy.close()

    def commit(self, db: Connection) -> None:
        number = self.serial + 1
        db.rows("BEGIN IMMEDIATE")
        db.rows("INSERT OR REPLACE INTO t VALUES (?, ?, ?)", self.random.randrange(200), f"commit {number}",
                self.random.randbytes(self.random.randrange(2000)).hex())
        db.rows("UPDATE meta SET serial = ?", number)
        db.rows("COMMIT")
        self.states[number] = digest(db)
        self.serial = number

    def sync(self, db: Connection) -> None:
        number = self.serial
        sync(db, 100)
        self.synced = number
        self.states = {n: state for n, state in self.states.items() if n >= number}

    def life(self, at: int | str, when: str, successor: str) -> tuple[str | None, Connection | None]:
        """A process from its open to its death; what it died of, and who stood by. Without a kill it ends with the cycle."""
        worker = self.start()
        self.trap.set(at, when, worker.pid)
        standby, began = None, time.monotonic()
        try:
            db = worker.open(self.uri(), timeout=60)
            self._may_have_one_more(db)
            if successor == STANDBY:
                standby = self.open()
            while self.trap.struck is None and not self._is_complete(at, time.monotonic() - began):
                self.commit(db)
                if self.random.random() < 0.2:
                    self.sync(db)
                time.sleep(0.03)
        except HostDied:
            pass
        if self.trap.struck is not None:
            until(lambda: worker.ended, 60, "the kill")
        if not worker.ended:
            worker.kill()
        return self.trap.struck, standby

    def _is_complete(self, at: int | str, seconds: float) -> bool:
        if isinstance(at, str):
            assert seconds < 120, f"there is no {at}"
            return False
        return seconds > CYCLE and self.trap.kinds >= KINDS.keys() - {"pack"}

    def _may_have_one_more(self, db: Connection) -> None:
        """A commit whose answer was lost may be there or not."""
        serial = db.one("SELECT serial FROM meta")
        assert serial in (self.serial, self.serial + 1), f"commit {serial} after {self.serial}"
        state = digest(db)
        assert self.states.setdefault(serial, state) == state
        self.serial = serial

    def looked_at(self, thorough: bool = False) -> None:
        """The machine is off. Whoever has its disk opens what waits for a merge; beyond that at most what was just merged,
        where the process had no time to forget it. The replica restores with the identity."""
        # What a dead process had sent may be on its way still.
        until(lambda: self.proxy.clients() == 0, 60, "all that was sent has arrived")
        self.archive.look()
        state = state_folder(self.database)
        opened = self.thief.has_keys_of(state)
        if thorough or self.looks % THOROUGH == 0:
            assert self.thief.opens(state) == opened == self.thief.has_true_keys_of(self.machine)
        self._assert_no_more_than_waits(opened, self.archive.merges[-1:])
        waiting = {file: path for file, path in self.archive.there().items()
                   if file.level < TOP and not self.archive.merged_into(file) and file in self.archive.files[self.owned_from:]}
        for file, path in waiting.items():
            assert file in opened, f"{file} is still to be merged, and does not open: the search finds nothing"
            assert ltx4.pages(path.read_bytes(), file.key, every=1 << 30)
        self.looks, self.waiting = self.looks + 1, self.waiting + len(waiting)
        self.leftovers += any(self.archive.merged_into(file) for file in opened)
        everything = b"".join(content(path) for path in state.rglob("*"))
        assert not memory.find(everything, memory.forms(bytes.fromhex(KEY["private_hex"]), KEY["identity"][16:]))
        self.restored()

    def _assert_no_more_than_waits(self, opened: set[Sealed], but_into: list[Sealed]) -> None:
        for file in opened:
            assert file.level < TOP, f"{file} opens on the machine"
            merged = self.archive.merged_into(file)
            assert merged is None or merged in but_into, f"{file} opens on the machine, and was merged into {merged}"

    def restored(self) -> None:
        """With the identity, elsewhere: a state that was committed, no older than the last sync."""
        path = self.vault / "restored.db"
        reader = self.keeper.open(":memory:", "reader")
        restore(reader, self.location, path, age_identity_file=str(self.identity))
        reader.close()
        copy = self.keeper.open(path, "copy")
        content, serial = copy.content(), copy.one("SELECT serial FROM meta")
        assert content.integrity == "ok" and content.tables["ballast"] == self.ballast
        assert self.synced <= serial <= self.serial + 1, f"commit {serial} of {self.synced} to {self.serial}"
        if serial in self.states:
            assert digest(copy) == self.states[serial], f"something else than commit {serial}"
        else:
            # Its answer was lost.
            self.states[serial] = digest(copy)
        copy.close()
        path.unlink()
        shutil.rmtree(state_folder(path), ignore_errors=True)

    def goes_on(self, db: Connection) -> None:
        """Whoever comes next publishes, and is told nothing for that; what was published is merged, and nothing opens then that
        was. Else the next one would have more and more to read before it does anything else."""
        self._may_have_one_more(db)
        self.commit(db)
        self.sync(db)
        assert self.location.gaps() == []

        last = self.location.last_txid()

        def is_tidy() -> bool:
            self.archive.look()
            waits = any(file.level == 0 and file.max <= last and file.min > 1 and not self.archive.merged_into(file)
                        for file in self.archive.files[self.owned_from:] if file.landed)
            return not waits and not any(self.archive.merged_into(file) for file in self.thief.has_keys_of(state_folder(self.database)))

        until(is_tidy, 60, "nothing opens that was merged", every=0.2)

    def ended_at(self, at: int | str, when: str, successor: str) -> str | None:
        """One kill, and all that must hold after it; what the request was for, or None if the cycle ended before."""
        kind, standby = self.life(at, when, successor)
        if standby is None:
            successor = RESTART
            self.looked_at()
        db = standby or self.open()
        self.trap.set(None, "", 0)
        self.goes_on(db)
        self.kill(db)
        self.looked_at()
        if kind:
            self.table[f"killed at a {kind}, {when}; {successor}", KINDS[kind]] += 1
        return kind

    def at_each_request(self, step: int, moments: tuple[str, ...]) -> int:
        """Kills at requests 1, 1 + step, … of a cycle, at these `moments`; how many requests that has."""
        requests = 0
        for when in moments:
            for at in range(1, 10_000, step):
                kind = self.ended_at(at, when, (RESTART, STANDBY)[at // step % 2])
                self.say(f"request {at}, {when}: {kind or 'the cycle was over'}; {len(self.archive.files)} files, {self.thief.tried} keys tried")
                if kind is None:
                    break
            requests = max(requests, at - step)
            self.looked_at(thorough=True)
        return requests

    def happened(self, event: str, expected: str) -> None:
        self.table[event, expected] += 1
        self.say(f"{event}: {expected}")

    def an_outage(self) -> None:
        db = self.open()
        self.goes_on(db)
        self.proxy.refuse()
        spool = state_folder(self.database)

        def many_wait() -> bool:
            self.commit(db)
            return len(list(spool.rglob("spool/*.ltx"))) > 1

        until(many_wait, 60, "waiting files", every=0.1)
        assert {path.read_bytes()[:4] for path in spool.rglob("spool/*.ltx")} == {b"LTX4"}
        self.kill(db)
        self.looked_at(thorough=True)
        self.proxy.accept()
        db = self.open()
        until(lambda: not list(spool.rglob("spool/*.ltx")), 60, "all was sent")
        self.goes_on(db)
        self.kill(db)
        self.looked_at()
        self.happened("the store is away, and the process is killed meanwhile", "what waits is sealed, and goes out unasked")

    def a_clean_end(self) -> None:
        db = self.open()
        standby = self.open()
        self.commit(db)
        db.close()
        self.serial = standby.one("SELECT serial FROM meta")
        self.goes_on(standby)
        standby.close()
        # Until it ends, a process keeps the history of what it had open a while ago.
        for connection in (db, standby):
            connection.worker.end()
        self.looked_at()
        self.happened("a process closes, another takes over, and closes", "it goes on")

    def refuses(self, db: Connection, words: str) -> None:
        """It publishes nothing, says so, and works on; nothing of the replica opens there."""
        before = {file.path.name for file in self.location.files(0)}
        self.serial = db.one("SELECT serial FROM meta")
        self.commit(db)
        try:
            sync(db, 60)
        except SqlError as error:
            assert re.search(words, str(error), re.S), error
        else:
            raise AssertionError("it publishes")
        assert {file.path.name for file in self.location.files(0)} <= before

    def lost_state(self) -> None:
        shutil.rmtree(state_folder(self.database))
        self.owned_from = len(self.archive.files)
        self.looked_at(thorough=True)
        assert not self.thief.opens(state_folder(self.database))
        db = self.open()
        self.refuses(db, "cannot be compared.*identity")
        self.happened("the state folder is lost", "nothing opens here any more; it publishes nothing, and says what to do")
        db.rows("SELECT litestream_resume('force')")
        self.goes_on(db)
        self.kill(db)
        self.looked_at()
        self.happened("... and somebody says 'force'", "a full copy, and it goes on; what lacks its key is left out of merges")
        shutil.rmtree(state_folder(self.database))
        self.owned_from = len(self.archive.files)
        db = self.open(age_identity_file=self.identity)
        self.goes_on(db)
        self.kill(db)
        self.looked_at(thorough=True)
        self.happened("... or the identity is there for one open", "it goes on, and nothing of the identity stays")
        db = self.open()
        self.goes_on(db)
        self.kill(db)
        self.looked_at()

    def another_boot(self) -> None:
        for state in state_folder(self.database).glob("replicas/*/vfs.json"):
            text, changed = re.subn(r'"boot":"[^"]*"', '"boot":"the boot before"', state.read_text())
            assert changed
            state.write_text(text)
        db = self.open()
        self.goes_on(db)
        self.kill(db)
        self.looked_at()
        self.happened("the machine is started again", "it goes on")

    def another_machine(self) -> None:
        """Restored with the identity, which stays behind."""
        before, first = set(self.archive.files), self.machine
        reader = self.keeper.open(":memory:", "reader")
        restore(reader, self.location, self.vault / "app.db", age_identity_file=str(self.identity))
        reader.close()
        self.machine = first.with_name("another")
        self.machine.mkdir()
        for path in (self.vault / "app.db", state_folder(self.vault / "app.db")):
            shutil.move(path, self.machine / path.name)
        serial, self.owned_from = self.serial, len(self.archive.files)
        db = self.open()
        self.serial = db.one("SELECT serial FROM meta")
        assert self.synced <= self.serial <= serial
        self.goes_on(db)
        self.kill(db)
        self.looked_at(thorough=True)
        assert not before & self.thief.opens(state_folder(self.database))
        self.happened("another machine, with what was restored by the identity",
                      "it goes on, has no key of the first one's files, and makes a snapshot")
        there, second, serial, states = {file.path.name for file in self.location.files()}, self.machine, self.serial, dict(self.states)
        self.machine = first
        db = self.open()
        self.refuses(db, "earlier state|cannot be compared")
        self.kill(db)
        self.archive.look()
        self._assert_no_more_than_waits(self.thief.opens(state_folder(self.database)), [])
        assert {file.path.name for file in self.location.files()} == there
        self.happened("the first machine comes back", "it publishes nothing, says so, and opens nothing that was merged")
        self.machine, self.serial, self.states = second, serial, states

    def a_copied_machine(self) -> None:
        """The database with its state folder, elsewhere, while the first one is off."""
        first, self.machine = self.machine, self.machine.with_name("copied")
        shutil.copytree(first, self.machine, ignore=shutil.ignore_patterns("*.sock"))
        db = self.open()
        self.refuses(db, "cannot be compared.*identity")
        self.happened("a copy of database and state folder on another machine", "it is noticed: nothing is published, and it says what to do")
        db.rows("SELECT litestream_resume('force')")
        self.owned_from = len(self.archive.files)
        self.goes_on(db)
        self.kill(db)
        self.looked_at()
        self.happened("... and somebody says 'force'", "a full copy, and it goes on; what lacks its key is left out of merges")

    def ends(self) -> dict:
        """All that is due is done."""
        db = self.open()
        self.goes_on(db)
        until(lambda: not any(file.level < TOP and not self.archive.merged_into(file) for file in self.archive.there()
                              if file.min > 1), 120, "all is merged", every=0.2)
        db.close()
        db.worker.end()
        self.looked_at(thorough=True)
        self._planted_keys_are_found()
        reader = self.keeper.open(":memory:", "reader").load()
        options = json.dumps({"age_identity_file": str(self.identity)})
        findings = reader.rows("SELECT severity, message FROM litestream_verify(?, ?)", self.location.full_url, options)
        assert findings == [], findings
        levels = Counter(file.level for file in self.archive.files if file.landed)
        return {"looks": self.looks, "commits": self.serial, "files": dict(sorted(levels.items())), "keys_tried": self.thief.tried,
                "waiting_that_opened": self.waiting, "just_merged": self.leftovers}

    def _planted_keys_are_found(self) -> None:
        """Where a key of a snapshot or of the highest level was left on the disk, both searches say so."""
        spot = state_folder(self.database) / "planted"
        for level in (TOP, SNAPSHOT):
            file = next(file for file in reversed(self.archive.files) if file.level == level)
            spot.write_bytes(b"planted " + file.key)
            assert file in self.thief.opens(state_folder(self.database))
            spot.write_text(json.dumps({"key": ltx4._expand(file.key, b"ltx-page-key").hex()}))
            assert file in self.thief.has_true_keys_of(self.machine)
        spot.unlink()

    def show(self) -> None:
        self.say("\n| event | expected, and seen | times |\n| --- | --- | --- |")
        for (event, expected), times in self.table.items():
            self.say(f"| {event} | {expected} | {times} |")


def run(seed: int, server: S3Server, location: Location, folder: Path, step: int = 1, moments: tuple[str, ...] = (BEFORE, AFTER),
        kinds: list[tuple[str, str, str]] | None = None, say: Callable[[str], None] = lambda line: None) -> dict:
    """Kills at each request, or each so many; or, if `kinds` are given, at one of each of these, and by whom it is followed."""
    world = WriteOnly(seed, server, location, folder, say)
    try:
        requests = 0
        if kinds is None:
            requests = world.at_each_request(step, moments)
        for kind in kinds or ():
            assert world.ended_at(*kind) == kind[0]
        world.an_outage()
        world.a_clean_end()
        world.lost_state()
        world.another_boot()
        world.another_machine()
        world.a_copied_machine()
        report = world.ends() | {"requests": requests}
        world.show()
        say(f"nothing opened that should not: {report}")
        return report | {"table": dict(world.table)}
    finally:
        world.end()
