"""The library in real hosts: the sqlite3 shell, Debian's python3 and apsw, plain SQLite work through the shim.

Every story runs in a process of its own, because a loaded library stays loaded.
LITESTREAM_VFS_LIB names the library (default dist/litestream_vfs.so, or .dylib).
"""

import os
import platform
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SUFFIX = "dylib" if platform.system() == "Darwin" else "so"
LIB = Path(os.environ.get("LITESTREAM_VFS_LIB", ROOT / f"dist/litestream_vfs.{SUFFIX}")).resolve()

SHELL = shutil.which("sqlite3")
STDLIB_PYTHON = "/usr/bin/python3"

STDLIB = """
import sqlite3
Error = sqlite3.Error
def load(db):
    db.enable_load_extension(True)
    db.load_extension(LIB)
def connect(name):
    return sqlite3.connect(name, uri=True, isolation_level=None, timeout=30)
"""

APSW = """
import apsw
Error = apsw.Error
def load(db):
    db.enable_load_extension(True)
    db.load_extension(LIB)
def connect(name):
    db = apsw.Connection(name, flags=apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
    db.set_busy_timeout(30000)
    return db
"""

COMMON = """
import hashlib, os, sys
LIB = {lib!r}
FOLDER = {folder!r}
def ours(name, extra=''):
    return f'file:{{FOLDER}}/{{name}}?vfs=litestream&replica=file://{{FOLDER}}/{{name}}-replica{{extra}}'
def plain(name):
    return f'file:{{FOLDER}}/{{name}}'
def one(db, sql):
    return db.execute(sql).fetchall()[0][0]
def content(db):
    tables = [r[0] for r in db.execute("select name from sqlite_schema where type = 'table' order by 1").fetchall()]
    return hashlib.sha256(repr([(t, db.execute(f'select * from "{{t}}" order by rowid').fetchall()) for t in tables]).encode()).hexdigest()
def wal(db, schema='main'):
    assert one(db, f'pragma {{schema}}.journal_mode = wal') == 'wal'
def raises(call):
    try:
        call()
    except Error as e:
        return str(e)
    raise AssertionError('no error')
"""

HOSTS = {"python3": (STDLIB_PYTHON, STDLIB), "apsw": (sys.executable, APSW)}


@pytest.fixture(params=HOSTS)
def host(request, tmp_path):
    """Runs a story in a process of its own, in one of the two Pythons."""
    python, prelude = HOSTS[request.param]
    common = COMMON.format(lib=str(LIB.with_suffix("")), folder=str(tmp_path))

    def run(story, *args, wait=True):
        script = prelude + common + textwrap.dedent(story)
        process = subprocess.Popen(
            [python, "-c", script, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        return finish(process) if wait else process

    return run


def finish(process):
    """What a process printed; fails if it failed."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out


def shell(*lines, cwd):
    """What the sqlite3 shell prints for these lines: stdout and stderr together."""
    done = subprocess.run(
        [SHELL, "-batch"],
        input="\n".join([f".load {LIB.with_suffix('')}", *lines, ""]),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=cwd, timeout=60,
    )
    return done.stdout


WORK = """
import random
def work(name):
    random.seed(7)
    db = connect(name)
    wal(db)
    {setup}
    db.execute('create table a(id integer primary key, n int, b blob)')
    db.execute('create table c(id integer primary key, total int)')
    db.execute('insert into c values(1, 0)')
    for i in range(300):
        n = random.randrange(1000)
        db.execute('begin')
        db.execute('insert into a(n, b) values(?, ?)', (n, random.randbytes(random.choice([10, 900, 9000]))))
        db.execute('update c set total = total + ? where id = 1', (n,))
        db.execute('savepoint s')
        db.execute('delete from a where id = ?', (i // 3,))
        db.execute('rollback to s' if i % 2 else 'release s')
        db.execute('rollback' if i % 11 == 0 else 'commit')
        if i % 90 == 0:
            db.execute('pragma wal_checkpoint(truncate)').fetchall()
    db.execute('delete from a where id % 5 = 0')
    db.execute('vacuum')
    db.close()
    db = connect(name)
    {setup}
    assert one(db, 'pragma integrity_check') == 'ok'
    found = content(db)
    db.close()
    return found
"""


@pytest.mark.parametrize(
    "setup",
    ["pass", "one(db, 'pragma mmap_size = 268435456')", "one(db, 'pragma locking_mode = exclusive')"],
    ids=["shared", "mmap", "exclusive"],
)
def test_work_through_the_shim_gives_what_plain_sqlite_gives(host, setup):
    host(WORK.format(setup=setup) + """
load(connect(':memory:'))
expected = work(plain('plain.db'))
assert work(ours('ours.db')) == expected
assert not os.path.exists(FOLDER + '/ours.db-wal'), 'the last close removes the WAL'
db = connect(plain('ours.db'))
assert content(db) == expected, 'plain SQLite reads the same'
assert one(db, 'pragma integrity_check') == 'ok'
""")


def test_memory_maps_are_those_of_the_base_vfs(host):
    host("""
load(connect(':memory:'))
db = connect(ours('m.db'))
wal(db)
assert one(db, 'pragma mmap_size = 1048576') == 1048576
db.execute('create table t(b)')
db.execute("with recursive n(i) as (select 1 union all select i + 1 from n where i < 200) insert into t select randomblob(3000) from n")
db.execute('pragma wal_checkpoint(truncate)').fetchall()
db.close()
db = connect(ours('m.db'))
assert one(db, 'pragma mmap_size = 1048576') == 1048576
assert one(db, 'select sum(length(b)) from t') == 600000
maps = open('/proc/self/maps').read() if os.path.exists('/proc/self/maps') else 'm.db\\n'
assert any(line.endswith('/m.db') for line in maps.splitlines()), maps
""")


def test_attached_databases(host):
    host("""
load(connect(':memory:'))
db = connect(plain('main.db'))
load(db)
db.execute('attach ? as o', (ours('o.db'),))
wal(db, 'o')
db.execute('create table main.m(x)')
db.execute('create table o.t(x)')
for i in range(20):
    db.execute('begin')
    db.execute('insert into main.m values(?)', (i,))
    db.execute('insert into o.t values(?)', (i,))
    db.execute('rollback' if i == 7 else 'commit')
assert one(db, 'select count(*) from main.m join o.t using(x)') == 19
db.execute('detach o')
db.execute('attach ? as o', (plain('o.db'),))
assert one(db, 'select count(*) from o.t') == 19
""")


def test_plain_databases_beside_ours_stay_plain(host):
    """ATTACH and VACUUM INTO use the VFS of the connection, for names that were not meant for it."""
    host("""
load(connect(':memory:'))
db = connect(ours('main.db'))
wal(db)
db.execute('create table main.m(x)')
db.execute('insert into m values(1)')
db.execute('attach ? as p', (plain('p.db'),))
assert one(db, 'pragma p.journal_mode') == 'delete'
db.execute('create table p.t as select * from m')
db.execute('vacuum into ?', (FOLDER + '/copy.db',))
db.execute('detach p')
for name, table in ('p.db', 't'), ('copy.db', 'm'):
    assert one(connect(plain(name)), f'select x from {table}') == 1
""")


def test_the_vfs_may_be_named_by_the_application(tmp_path):
    script = APSW + COMMON.format(lib=str(LIB.with_suffix("")), folder=str(tmp_path)) + textwrap.dedent("""
        load(connect(':memory:'))
        text = raises(lambda: apsw.Connection(FOLDER + '/a.db', vfs='litestream'))
        assert 'replica' in text, text
        assert one(connect(plain('b.db')), 'select litestream_version()')
    """)
    finish(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


def test_two_processes_write_one_database(host):
    story = """
load(connect(':memory:'))
db = connect(ours('p.db'))
wal(db)
db.execute('create table if not exists t(id integer primary key, who, n)')
sys.stdout.write('ready\\n'); sys.stdout.flush()
for n in range(200):
    db.execute('insert into t(who, n) values(?, ?)', (sys.argv[1], n))
    if n % 50 == 0:
        db.execute('pragma wal_checkpoint').fetchall()
assert one(db, 'pragma integrity_check') == 'ok'
"""
    host(story, "first")
    both = [host(story, who, wait=False) for who in ("second", "third")]
    for process in both:
        finish(process)
    host("""
load(connect(':memory:'))
for name in ours('p.db'), plain('p.db'):
    db = connect(name)
    assert db.execute('select who, count(distinct n) from t group by 1 order by 1').fetchall() == [('first', 200), ('second', 200), ('third', 200)]
    assert one(db, 'pragma integrity_check') == 'ok'
""")


def test_locks_are_those_that_other_processes_see(host):
    host("""
import subprocess
def elsewhere(sql):
    return subprocess.run(['sqlite3', '-batch', FOLDER + '/k.db', sql], capture_output=True, text=True)
load(connect(':memory:'))
db = connect(ours('k.db'))
wal(db)
db.execute('create table t(x)')
assert elsewhere('insert into t values(1)').returncode == 0
assert os.path.exists(FOLDER + '/k.db-wal'), 'the other one is not the last to close'
db.execute('begin immediate')
assert 'locked' in elsewhere('insert into t values(2)').stderr
db.execute('rollback')
one(db, 'pragma locking_mode = exclusive')
db.execute('insert into t values(3)')
assert 'locked' in elsewhere('select * from t').stderr
db.close()
assert elsewhere('select sum(x) from t').stdout == '4\\n'
""")


def test_loading_again_changes_nothing(host, tmp_path):
    host("""
db = connect(':memory:')
load(db)
load(db)
load(connect(':memory:'))
version = one(db, 'select litestream_version()')
assert one(db, f"select load_extension('{LIB}')") is None
assert one(connect(ours('l.db')), 'select litestream_version()') == version
""")
    out = shell(f".load {LIB.with_suffix('')}", f"select load_extension('{LIB}');",
                "select 'version', litestream_version();", cwd=tmp_path)
    assert "Error" not in out and "version|" in out, out


def test_both_entry_points(tmp_path):
    other = tmp_path / f"renamed.{SUFFIX}"
    shutil.copy(LIB, other)
    out = subprocess.run([SHELL, "-batch", "-cmd", f".load {other}", ":memory:", "select 'v', litestream_version()"],
                         capture_output=True, text=True, check=False, timeout=60)
    assert out.stdout.startswith("v|"), out.stderr


def test_loading_starts_and_opens_nothing(host):
    host("""
db = connect(':memory:')
def state():
    return len(os.listdir('/proc/self/task')), sorted(os.listdir('/proc/self/fd')), dict(os.environ)
if os.path.exists('/proc/self/task'):
    before = state()
    load(db)
    assert state() == before
    assert one(db, 'select litestream_version()')
""")


def test_it_is_never_the_default(host):
    host("""
load(connect(':memory:'))
db = connect(plain('d.db'))
wal(db)
db.execute('create table t(x)')
assert sorted(os.listdir(FOLDER)) == ['d.db', 'd.db-shm', 'd.db-wal']
""")


def test_a_refused_open_says_why_and_harms_no_other(host):
    host("""
load(connect(':memory:'))
before = connect(plain('before.db'))
def refused():
    connect(f'file:{FOLDER}/r.db?vfs=litestream')
for _ in range(3):
    assert 'replica' in raises(refused), raises(refused)
    assert one(before, 'select litestream_version()')
    after = connect(plain('after.db'))
    after.execute('create table if not exists t(x)')
    assert one(after, 'select litestream_version()')
    assert one(connect(ours('good.db')), 'select litestream_version()')
assert not os.path.exists(FOLDER + '/r.db')
""")


def test_a_refused_attach_fails_and_its_text_is_in_the_log(tmp_path):
    script = APSW + COMMON.format(lib=str(LIB.with_suffix("")), folder=str(tmp_path)) + textwrap.dedent("""
        lines = []
        apsw.config(apsw.SQLITE_CONFIG_LOG, lambda code, text: lines.append((code, text)))
        load(connect(':memory:'))
        db = connect(plain('main.db'))
        attach = lambda: db.execute('attach ? as r', (f'file:{FOLDER}/r.db?vfs=litestream',))
        assert 'unable to open' in raises(attach), raises(attach)
        assert any('r.db' in text and 'replica' in text for _, text in lines), lines
        load(db)
        db.execute('attach ? as o', (ours('o.db'),))
        db.execute('create table o.t(x)')
        db.execute('create table main.t(x)')
    """)
    finish(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


def test_the_shell_shows_why_an_open_is_refused(tmp_path):
    out = shell(".open 'file:r.db?vfs=litestream'", "select 'still here', litestream_version();",
                ".open 'file:g.db?vfs=litestream&replica=file:///tmp/none'".replace("/tmp/none", str(tmp_path / "g")),
                ".vfsname", cwd=tmp_path)
    assert "replica" in out and "still here|" in out and "litestream/unix" in out, out


def test_a_second_sqlite_library_in_the_process_is_refused(tmp_path):
    apsw_folder = Path(__import__("apsw").__file__).parents[1]
    script = STDLIB + COMMON.format(lib=str(LIB.with_suffix("")), folder=str(tmp_path)) + textwrap.dedent("""
        load(connect(':memory:'))
        import apsw
        assert apsw.sqlite_lib_version() != sqlite3.sqlite_version
        other = apsw.Connection(':memory:')
        other.enable_load_extension(True)
        try:
            other.load_extension(LIB)
            raise AssertionError('loaded')
        except apsw.ExtensionLoadingError as e:
            text = str(e)
        assert apsw.sqlite_lib_version() in text and sqlite3.sqlite_version in text, text
        db = connect(ours('two.db'))
        db.execute('create table t(x)')
        assert one(db, 'select litestream_version()')
    """)
    process = subprocess.Popen([STDLIB_PYTHON, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, env={**os.environ, "PYTHONPATH": str(apsw_folder)})
    finish(process)


def test_a_host_that_is_too_old_is_refused():
    """A made-up API table in SQLite's layout: fields 66 to 68 are libversion, libversion_number, malloc."""
    script = textwrap.dedent(f"""
        import ctypes
        lib = ctypes.CDLL({str(LIB)!r})
        libc = ctypes.CDLL(None)
        version = ctypes.CFUNCTYPE(ctypes.c_char_p)(lambda: b'3.31.1')
        number = ctypes.CFUNCTYPE(ctypes.c_int)(lambda: 3031001)
        api = (ctypes.c_void_p * 100)()
        api[66], api[67] = ctypes.cast(version, ctypes.c_void_p), ctypes.cast(number, ctypes.c_void_p)
        api[68] = ctypes.cast(libc.malloc, ctypes.c_void_p)
        error = ctypes.c_char_p()
        assert lib.sqlite3_litestreamvfs_init(None, ctypes.byref(error), ctypes.byref(api)) == 1
        assert b'3.34.1' in error.value and b'3.31.1' in error.value, error.value
    """)
    finish(subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
