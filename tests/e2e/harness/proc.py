"""What /proc tells of a process."""

import os
from pathlib import Path


def _field(file: Path, field: str) -> int:
    for line in file.read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    raise LookupError(field)


def _status(pid: int, field: str) -> int:
    return _field(Path(f"/proc/{pid}/status"), field)


def rss_kib(pid: int) -> int:
    """Resident memory now, in KiB."""
    return _status(pid, "VmRSS")


def peak_rss_kib(pid: int) -> int:
    """The most resident memory since the start or the last `reset_peak`, in KiB."""
    return _status(pid, "VmHWM")


def reset_peak(pid: int) -> None:
    """Makes `peak_rss_kib` start anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def threads(pid: int) -> int:
    """The number of threads."""
    return _status(pid, "Threads")


def descriptors(pid: int) -> list[str]:
    """What the open descriptors are, sorted."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(os.readlink(fd))
        except FileNotFoundError:
            continue
    return sorted(links)


def cpu_seconds(pid: int) -> float:
    """User and system time, threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wake_ups(pid: int) -> dict[str, int]:
    """How often each thread has slept and been woken, by thread."""
    return {task.name: _field(task / "status", "voluntary_ctxt_switches") for task in Path(f"/proc/{pid}/task").iterdir()}


def bytes_read(pid: int) -> int:
    """What all read calls of its threads have returned, whether or not it came from a disk."""
    return _field(Path(f"/proc/{pid}/io"), "rchar")
