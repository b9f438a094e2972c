"""Processes that read the same replicas with the same cache folder are killed while they fill it, and the folder
is too small for what they read, so that they remove what others use. Whatever they leave behind, the next one
reads what is in the database."""

from harness.sql import fill, insert, sync

PROCESSES = 3
ROUNDS = 5


def test_processes_that_are_killed_leave_a_cache_that_others_can_use(start, in_folder, tmp_path):
    primary = start("python").open(in_folder.primary(tmp_path / "app.db"))
    fill(primary, rows=60_000, size=1500)
    sync(primary)
    insert(primary)
    sync(primary)
    written = primary.content()
    cache = tmp_path / "cache"
    uri = in_folder.replica(cache_dir=cache, cache_dir_size="64MiB", cache_size="1MiB", poll_interval="50ms")
    scan = "SELECT count(*), sum(length(data)), max(id) FROM t"
    expected = primary.rows(scan)
    for _ in range(ROUNDS):
        workers = [start("python") for _ in range(PROCESSES)]
        connections = [worker.open(uri) for worker in workers]
        # All but the first are killed in the middle of a scan.
        for worker, connection in zip(workers[1:], connections[1:]):
            worker.begin("exec", name=connection.name, sql=scan, params=[])
        assert connections[0].rows(scan) == expected
        for worker in workers[1:]:
            worker.kill()
    last = start("python").open(uri)
    assert last.content() == written
    used = sum(path.stat().st_blocks * 512 for path in files(cache))
    # The size, and an eighth of it for each process that wrote beside another.
    assert 0 < used <= 64 * 1024 * 1024 * (1 + (PROCESSES - 1) / 8)


def files(folder) -> list:
    return [path for path in folder.rglob("*") if path.is_file()]
