"""The command line, with Litestream's commands, flags and JSON. What a SQL function can do is done there."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
import threading
from pathlib import Path
from typing import Any, Callable, NamedTuple, NoReturn

from ._exit import Exit
from ._mcp import serve
from ._restore import dumps, follow, query, restore, unfollow

USAGE = """\
Restores and inspects SQLite databases that replicate to object storage.

Usage:

    python -m sqlite_litestream <command> [flags] [DB_PATH|REPLICA_URL]

The commands are:

    config       show the settings in force for a database, and where each comes from
    databases    list databases specified in the configuration file
    history      list the points that a replica can be restored to
    keygen       print a new pair of keys of encrypted replicas
    ltx          list the LTX files of a replica
    mcp          offer these commands to an assistant as tools, over standard input and output
    reset        forget the local state of a database that nobody has open
    restore      write a database from a replica
    status       show how far databases were published
    verify       read a replica to prove that it restores
    version      print the version

They end with 0 if all went well, else with

    1   what has no number of its own
    2   a flag, a setting or the configuration file is wrong
    3   a local file is missing, in use, in the way, or cannot be read or written
    4   the store: network, credentials, bucket
    5   integrity: a checksum fails, or verify found errors
    6   the replica has nothing to restore, or not that point in time
"""

INSTEAD = {
    "sync": "SELECT litestream_sync(), on a connection of the program",
    "list": "SELECT * FROM litestream_databases, on a connection of the program",
    "info": "SELECT * FROM litestream_databases, on a connection of the program",
    "monitor": "SELECT * FROM litestream_status, on a connection of the program",
    "register": "an entry in the configuration file, or litestream_configure(path, settings)",
    "unregister": "litestream_configure(path, NULL)",
    "start": "opening the database: it replicates while it is open",
    "stop": "closing the database: it replicates while it is open",
    "replicate": "the program itself, which loads the library: file:app.db?vfs=litestream&replica=URL",
}
"""Commands of Litestream that speak to its daemon, and what does the same here."""


class Refused(Exception):
    """What is said on standard error before the command ends, since it was called wrongly."""


class Flag(NamedTuple):
    """A flag of a command."""

    name: str
    help: str
    value: str = ""
    """What its value is called; empty for one that has none."""


IDENTITY = Flag("age-identity-file", "What opens an encrypted replica.", "PATH")
CONFIG = Flag("config", "The configuration file. Default: $LITESTREAM_CONFIG, then /etc/litestream.yml.", "PATH")
JSON = Flag("json", "Print JSON.")
REFUSED = {
    "no-expand-env": "the configuration file is always expanded; write values that have a '$' into the environment",
    "socket": "there is no daemon, and so no socket",
}
"""Flags of Litestream that would change what is done."""

RESTORE = [
    CONFIG, JSON,
    Flag("o", "Output path. Default: the path of the database, if that was named.", "PATH"),
    Flag("txid", "The state after this transaction.", "TXID"),
    Flag("timestamp", "The last state at or before this time.", "TIME"),
    Flag("parallelism", "Downloads at the same time. Default: 8.", "NUM"),
    Flag("integrity-check", "What SQLite checks before the file gets its name: none, quick, full.", "MODE"),
    IDENTITY,
    Flag("plain-until", "The last transaction before encryption was turned on.", "TXID"),
    Flag("if-db-not-exists", "That the output exists is no error."),
    Flag("if-replica-exists", "That the replica is empty is no error."),
    Flag("dry-run", "Print what would be restored."),
    Flag("f", "Follow: the output takes each new transaction until the command is ended, and continues when it is run again."),
    Flag("follow-interval", "With -f: how often to look for new transactions. Default: 1s.", "TIME"),
    Flag("bandwidth", "With -f: the most that is downloaded in a second, such as 10MB.", "SIZE"),
    Flag("force", "Replace the output if it exists."),
    Flag("rewind", "With -txid or -timestamp: a primary that opens the file publishes that state."),
]
GLANCE = 0.5
"""Seconds between two looks whether a copy still follows."""
Given = dict[str, Any]


def main(arguments: list[str] | None = None) -> None:
    """Runs a command and ends the process, with 0 if all went well."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        sys.exit(_run(arguments))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.GENERAL)
    except KeyboardInterrupt:
        _end("interrupted", Exit.GENERAL)
    except Refused as error:
        _end(str(error), Exit.CONFIGURATION)
    except sqlite3.Error as error:
        _end(str(error).replace('restore with {"force": true}', "use -force"), Exit.of(error))
    except OSError as error:
        _end(str(error), Exit.FILE)


def _end(text: str, code: Exit) -> NoReturn:
    print(f"Error: {text}", file=sys.stderr)
    sys.exit(code)


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("help", "-h", "-help", "--help"):
        print(USAGE)
        return Exit.WELL if arguments else Exit.CONFIGURATION
    name, *rest = arguments
    if name in INSTEAD:
        raise Refused(f"there is no daemon to ask, since the library runs in your program; instead of '{name}': {INSTEAD[name]}")
    if name not in COMMANDS:
        raise Refused(f"unknown command '{name}'; known are {', '.join(COMMANDS)}")
    command, flags, operand = COMMANDS[name]
    if any(argument.lstrip("-") in ("h", "help") and argument.startswith("-") for argument in rest):
        print(_help(name, flags, operand))
        return Exit.WELL
    given, operands = _parse(rest, flags)
    if len(operands) > (1 if operand else 0):
        raise Refused(f"too many arguments: {' '.join(operands)}")
    if operand and operand[0] != "[" and not operands:
        raise Refused(f"{operand} is missing: python -m sqlite_litestream {name} {operand}")
    if "config" in given:
        os.environ["LITESTREAM_CONFIG"] = given.pop("config")
    return command(given, *(operand if _is_url(operand) else _path(operand) for operand in operands)) or Exit.WELL


def _help(name: str, flags: list[Flag], operand: str) -> str:
    lines = [f"    -{flag.name} {flag.value}".rstrip() + f"\n        {flag.help}" for flag in flags]
    return "\n".join([f"Usage: python -m sqlite_litestream {name} [flags] {operand}".rstrip(), "", *lines])


def _parse(arguments: list[str], flags: list[Flag]) -> tuple[Given, list[str]]:
    """Flags as Go's package has them: `-x`, `--x`, `-x=value`, `-x value`, `-x=false`; before or after the operand."""
    known = {flag.name: flag for flag in flags}
    given: Given = {}
    operands: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument == "--":
            return given, operands + list(rest)
        if not argument.startswith("-") or argument == "-":
            operands.append(argument)
            continue
        name, separator, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if name in REFUSED:
            raise Refused(f"-{name}: {REFUSED[name]}")
        if name not in known:
            raise Refused(f"flag provided but not defined: -{name}")
        if not known[name].value:
            given[name] = _boolean(name, value) if separator else True
            continue
        if not separator and (value := next(rest, "")) == "":
            raise Refused(f"flag needs an argument: -{name}")
        given[name] = value
    return given, operands


def _boolean(name: str, value: str) -> bool:
    for words, meaning in ((("1", "t", "true"), True), (("0", "f", "false"), False)):
        if value.lower() in words:
            return meaning
    raise Refused(f"-{name}: '{value}' is neither true nor false")


def _restore(given: Given, source: str) -> None:
    as_json = given.pop("json", False)
    target = given.pop("o", None) or (None if _is_url(source) else source)
    if target is None:
        raise Refused(f"-o is required when restoring from a replica URL\nTry: -o /path/to/db {source}")
    if given.pop("f", False):
        return _follow(given, source, target)
    for name in ("follow-interval", "bandwidth"):
        if name in given:
            raise Refused(f"-{name}: only with -f")
    options = {name.replace("-", "_"): value for name, value in given.items() if value is not False}
    if "parallelism" in options and options["parallelism"].isdigit():
        options["parallelism"] = int(options["parallelism"])
    if options.pop("dry_run", False):
        return _plan(source, target, options, as_json)
    report = restore(source, target, **options)
    if not report["restored"]:
        print(f"nothing was restored: {report['reason']}", file=sys.stderr)
    elif as_json:
        _print_json({"db_path": target, "replica": _kind(source), "txid": report["txid"] or "",
                     "duration_ms": round(report["duration"] * 1000),
                     "integrity_check": options.get("integrity_check", "none")})
    else:
        print(f"{target}: restored to transaction {report['txid'] or '-'} of {report['timestamp']}, "
              f"{report['bytes']} bytes from {report['files']} files in {report['duration']:.1f} s", file=sys.stderr)
    return None


FOLLOWING = {"follow-interval", "bandwidth", "age-identity-file", "plain-until"}
"""Flags that have a meaning with `-f`."""


def _follow(given: Given, source: str, target: str) -> None:
    given = {name: value for name, value in given.items() if value is not False}
    if others := sorted(set(given) - FOLLOWING):
        raise Refused(f"-{others[0]}: not with -f, which follows the latest state and continues a copy that is there")
    options = {name.replace("-", "_"): value for name, value in given.items()}
    report = follow(source, target, **options)
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    print(f"{target}: follows {report['replica']} from transaction {report['txid']} of {report['timestamp']}", file=sys.stderr)
    while not ended.wait(GLANCE):
        if query("SELECT 1 FROM litestream_databases WHERE role = 'copy' AND state = 'stopped'"):
            # Says why it cannot.
            follow(source, target, **options)
    report = unfollow(target)
    print(f"{target}: is transaction {report['txid']} of {report['timestamp']}", file=sys.stderr)


def _plan(source: str, target: str, options: Given, as_json: bool) -> None:
    names = ["level", "name", "min_txid", "max_txid", "size", "timestamp"]
    rows = query(f"SELECT {', '.join(names)} FROM litestream_restore_plan(?, ?) ORDER BY step", source, dumps(options))
    files = [dict(zip(names, row)) for row in rows]
    txids = [file[name] for file in files for name in ("min_txid", "max_txid") if file[name]]
    least, most, kind = min(txids, default=""), max(txids, default=""), _kind(source)
    if as_json:
        return _print_json({"source": source, "target_path": target, "replica": kind, "min_txid": least,
                            "max_txid": most, "files": files})
    print(f"Restore plan:\n  source: {source}\n  target: {target}\n  replica: {kind}\n  txid range: {least} - {most}\n"
          "\nFiles to fetch:")
    _print_table(["level", "file", "min_txid", "max_txid", "size", "timestamp"], rows)


def _is_url(source: str) -> bool:
    return ":" in source.split("/", 1)[0] and not source.startswith(("sqlite://", "sqlite3://"))


def _kind(source: str) -> str:
    """What Litestream calls the kind of the replica."""
    if not _is_url(source):
        [source] = query("SELECT value FROM litestream_config(?) WHERE setting = 'replica' LIMIT 1", source)[0]
    scheme = source.split(":", 1)[0].lower()
    return {"webdavs": "webdav", "azure": "abs"}.get(scheme, scheme)


def _ltx(given: Given, source: str) -> None:
    level = given.get("level", "0")
    if level != "all" and level not in [str(number) for number in range(10)]:
        raise Refused(f"invalid -level '{level}': one of 0 to 9, or all")
    names = ["level", "min_txid", "max_txid", "size", "timestamp"]
    sql = f"SELECT {', '.join(names)} FROM litestream_ltx(?)"
    rows = query(sql, source) if level == "all" else query(sql + " WHERE level = ?", source, int(level))
    _print(given, names, [*names[:-1], "created"], rows)


def _history(given: Given, source: str) -> None:
    limit = given.get("limit", "-1")
    if not limit.removeprefix("-").isdigit():
        raise Refused(f"invalid -limit '{limit}': a number")
    names = ["txid", "time", "pages", "bytes", "level"]
    _print(given, names, names, query("SELECT * FROM litestream_history(?) LIMIT ?", source, int(limit)))


def _verify(given: Given, source: str) -> int:
    names = ["severity", "problem", "level", "name", "min_txid", "max_txid", "message"]
    options = {"quick": given.get("quick", False), "age_identity_file": given.get("age-identity-file"),
               "plain_until": given.get("plain-until")}
    rows = query("SELECT * FROM litestream_verify(?, ?)", source, dumps(options))
    if rows or given.get("json"):
        _print(given, names, names, rows)
    else:
        print("all is well")
    return Exit.INTEGRITY if any(row[0] == "error" for row in rows) else Exit.WELL


def _reset(given: Given, path: str) -> None:
    [[answer]] = query("SELECT litestream_reset(?)", path)
    print(f"{path}: its local state is forgotten, with {json.loads(answer)['waiting_files']} files that were not sent",
          file=sys.stderr)


def _config(given: Given, path: str) -> None:
    names = ["path", "replica", "setting", "value", "origin", "note"]
    rows = query("SELECT * FROM litestream_config(?)", path)
    _print(given, names, names[1:], rows if given.get("json") else [row[1:] for row in rows])


def _databases(given: Given) -> None:
    rows = query("SELECT path, type FROM litestream_configured")
    _print(given, ["path", "replica"], ["path", "replica"], rows)


def _status(given: Given, path: str | None = None) -> None:
    sql = "SELECT path, state, coalesce(txid, '-'), wal_bytes FROM litestream_configured"
    rows = query(sql) if path is None else query(sql + " WHERE path = ?", path)
    if path is not None and not rows:
        raise Refused(f"database not found in config: {path}")
    names = ["database", "status", "local_txid", "wal_size"]
    rows = [[*row[:3], "-" if row[1] == "no database" else _bytes(row[3] or 0)] for row in rows]
    _print(given, names, [name.replace("_", " ") for name in names], rows)


def _mcp(given: Given, url: str | None = None) -> None:
    if url is not None and not _is_url(url):
        raise Refused(f"{url} is not the URL of a replica; databases are those of the configuration file")
    if url is not None:
        os.environ["LITESTREAM_REPLICA_URL"] = url
    serve()


def _keygen(given: Given) -> None:
    print(query("SELECT litestream_keygen()")[0][0], end="")


def _version(given: Given) -> None:
    print(query("SELECT litestream_version()")[0][0])


def _path(text: str) -> str:
    for prefix in ("sqlite://", "sqlite3://"):
        text = text.removeprefix(prefix)
    return os.path.abspath(Path(text).expanduser())


def _bytes(count: int) -> str:
    """As Litestream writes sizes: of two significant digits, in powers of 1000."""
    if count < 1000:
        return f"{count} B"
    size, units = float(count), iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while size >= 1000:
        size, unit = size / 1000, next(units)
    return f"{size:.1f} {unit}" if size < 10 else f"{size:.0f} {unit}"


def _print(given: Given, names: list[str], titles: list[str], rows: list[list[Any]]) -> None:
    if given.get("json"):
        _print_json([dict(zip(names, row)) for row in rows])
    else:
        _print_table(titles, rows)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _print_table(titles: list[str], rows: list[list[Any]]) -> None:
    cells = [titles, *(["" if cell is None else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(titles))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


COMMANDS: dict[str, tuple[Callable[..., int | None], list[Flag], str]] = {
    "restore": (_restore, RESTORE, "DB_PATH|REPLICA_URL"),
    "status": (_status, [CONFIG, JSON], "[DB_PATH]"),
    "ltx": (_ltx, [CONFIG, JSON, Flag("level", "Level to list, 0 to 9, or all. Default: 0.", "LEVEL")], "DB_PATH|REPLICA_URL"),
    "history": (_history, [CONFIG, JSON, Flag("limit", "How many points, the latest first.", "NUM")], "DB_PATH|REPLICA_URL"),
    "verify": (_verify, [CONFIG, JSON, Flag("quick", "Only list the files and check their page indexes."), IDENTITY,
                         Flag("plain-until", "The last transaction before encryption was turned on.", "TXID")], "DB_PATH|REPLICA_URL"),
    "mcp": (_mcp, [CONFIG], "[REPLICA_URL]"),
    "keygen": (_keygen, [], ""),
    "reset": (_reset, [CONFIG], "DB_PATH"),
    "databases": (_databases, [CONFIG, JSON], ""),
    "config": (_config, [CONFIG, JSON], "DB_PATH"),
    "version": (_version, [Flag("verbose", "Taken because Litestream has it.")], ""),
}
