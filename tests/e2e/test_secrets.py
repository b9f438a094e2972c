"""Secrets stay where they were given: nothing that a program or a person is shown has one, and nothing that is left of a process
that crashed has what opens an encrypted replica.

A secret is looked for as it is, in hexadecimal digits, in base64, and as age writes it.
"""

import json
import os
import resource
import shutil
import signal
from pathlib import Path
from urllib.parse import quote

import pytest

from harness import age, mcp, memory, monitor
from harness.location import Location
from harness.paths import ROOT
from harness.proxy import Trickle
from harness.s3 import REGION, free_port
from harness.sftp import SftpServer
from harness.sql import fill, insert, restore, sync
from harness.wait import until
from harness.webdav import USER, WebDavServer
from harness.worker import SqlError

SAMPLE = ROOT / "tests" / "golden" / "ltx4"
KEY = json.loads((SAMPLE / "keys.json").read_text())[0]
FORMS = memory.forms(bytes.fromhex(KEY["private_hex"]), KEY["identity"][16:])
GIVEN = ["storage key", "webdav password", "sftp password", "page token", "tools token", "hook secret", "hook path", "beat path"]
SECRETS = {what: f"{what.replace(' ', '-')}-{os.urandom(9).hex()}" for what in GIVEN}


def shown_secrets(text: bytes, secrets: dict[str, dict[str, bytes]]) -> list[tuple[str, str, bytes]]:
    """Which secrets are in it, in which form, and what is around them."""
    return [(what, form, text[max(0, at - 80):at + 40]) for what, forms in secrets.items() for form, at in memory.find(text, forms).items()]


@pytest.fixture
def servers(tmp_path):
    """A WebDAV server whose password is one of the secrets, and an SFTP server that lets nobody in by a password."""
    webdav, sftp = WebDavServer(tmp_path / "webdav"), SftpServer(tmp_path / "sftp")
    webdav.stop()
    webdav.password = SECRETS["webdav password"]
    webdav.start()
    yield webdav, sftp
    webdav.remove()
    sftp.remove()


def test_nothing_that_is_shown_has_a_secret(start, servers, proxy, bucket, tmp_path):
    webdav, sftp = servers
    pager, page, tools, log = monitor.Recorder(), free_port(), free_port(), tmp_path / "log"
    identity, recipient = age.generate()
    key, config, path = tmp_path / "key.txt", tmp_path / "litestream.yml", tmp_path / "app.db"
    key.write_text(f"{identity}\n")
    config.write_text(f"""
addr: 127.0.0.1:{page}
listen-token: {SECRETS["page token"]}
mcp-addr: 127.0.0.1:{tools}
mcp-token: {SECRETS["tools token"]}
heartbeat-url: http://127.0.0.1:{pager.port}/{SECRETS["beat path"]}
webhooks:
- url: http://127.0.0.1:{pager.port}/{SECRETS["hook path"]}
  secret: {SECRETS["hook secret"]}
- url: http://127.0.0.1:{free_port()}/{SECRETS["hook path"]}
dbs:
- path: {path}
  sync-interval: 50ms
  replicas:
  - url: s3://{bucket.name}/app
    endpoint: {proxy.endpoint}
    region: {REGION}
    access-key-id: somebody
    secret-access-key: {SECRETS["storage key"]}
  - url: webdav://{USER}:{SECRETS["webdav password"]}@127.0.0.1:{webdav.port}/app
  - url: sftp://{sftp.user}:{SECRETS["sftp password"]}@127.0.0.1:{sftp.port}{sftp.root}/app
    host-key: {sftp.host_key}
  - url: file://{tmp_path}/sealed
    age: {{recipients: [{recipient}]}}
    age-identity-file: {key}
""")
    worker = start("python", env={"LITESTREAM_CONFIG": str(config), "LITESTREAM_LOG_LEVEL": "trace", "LITESTREAM_LOG_FILE": str(log),
                                  "LITESTREAM_SQL": "on"})
    db, shown = worker.open(f"file:{path}?vfs=litestream"), []

    def said(sql: str, *parameters) -> None:
        try:
            shown.append(db.rows(sql, *parameters))
        except SqlError as e:
            shown.append(str(e))

    fill(db)
    for _ in range(2):
        said("SELECT litestream_sync(3)")
        webdav.lock_out()
        insert(db)
    bearer = {"Authorization": f"Bearer {SECRETS['tools token']}"}
    until(lambda: mcp.is_there(tools, **bearer) and monitor.is_there(page), 10, "somebody answers")
    until(lambda: pager.told("auth_failure"), 30, "the pager is told")
    for table in ("litestream_config", "litestream_status", "litestream_databases"):
        said(f"SELECT * FROM {table}")
    for call in ("status()", "metrics()", "txid()", "version()"):
        said(f"SELECT litestream_{call}")
    sealed = f"file://{tmp_path}/sealed?age_identity_file={key}"
    for sql in ("SELECT * FROM litestream_ltx(?)", "SELECT * FROM litestream_history(?)", "SELECT * FROM litestream_restore_plan(?)",
                "SELECT * FROM litestream_verify(?)"):
        for url in (sealed, f"webdav://{USER}:{SECRETS['webdav password']}@127.0.0.1:{webdav.port}/app"):
            said(sql, url)
    said("SELECT litestream_restore(?, ?)", sealed, str(tmp_path / "restored.db"))
    assert (tmp_path / "restored.db").exists()
    for at in ("/", "/status.json", "/metrics", "/healthz", f"/points.json?db={path}&replica=file"):
        shown.append(monitor.get(page, at, Authorization=f"Bearer {SECRETS['page token']}"))
        assert shown[-1][0] in (200, 503)
        shown.append(monitor.get(page, f"{at.split('?')[0]}?token={quote(SECRETS['hook secret'])}"))
    for tool in sorted(mcp.TOOLS - {"litestream_restore", "litestream_reset"}):
        for place in ({}, {"path": str(path)}):
            shown.append(mcp.post(tools, mcp.request("tools/call", name=tool, arguments=place), **bearer))
    worker.end()
    shown += [request[2] for request in pager.requests]
    pager.close()
    logged = log.read_bytes()
    assert b" DEBUG " in logged and b"auth" in logged
    private = next(form for form in identity.split("\n"))
    secrets = {what: memory.forms(secret.encode()) for what, secret in SECRETS.items()}
    secrets["identity"] = memory.forms(private.encode(), private[16:])
    assert shown_secrets(repr(shown).encode(), secrets) == []
    assert shown_secrets(logged, secrets) == []
    # What is looked for in this way is found.
    assert shown_secrets(config.read_bytes(), secrets) and shown_secrets(key.read_bytes(), secrets)


def assert_not_in_a_core(pid: int, when: str) -> None:
    """A core dump that is taken now has no part of the identity; what is left out of it has."""
    found = {True: {}, False: {}}
    has_recipient = False
    for mapping in memory.mappings(pid):
        if "r" in mapping.access:
            data = memory.content(pid, mapping)
            found[mapping.is_dumped] |= memory.find(data, FORMS)
            has_recipient |= mapping.is_dumped and bytes.fromhex(KEY["public_hex"]) in data
    assert found[True] == {}, f"{when}: {found[True]}"
    assert "raw" in found[False] and has_recipient, f"{when}: the search finds nothing"


@pytest.mark.parametrize("form", ["identity", "private_hex"])
def test_a_core_dump_has_no_identity(start, proxy, in_s3, form, tmp_path):
    key, sealed = tmp_path / "key.txt", Location.file(tmp_path / "sealed")
    key.write_text(f"# created: 2026-11-29\n{KEY[form]}\n")
    shutil.copytree(SAMPLE / "one-recipient-4096" / "ltx", sealed.folder / "ltx")
    for level in (SAMPLE / "one-recipient-4096" / "ltx").iterdir():
        shutil.copytree(level, in_s3.level(int(level.name)))
    slow = in_s3.at(proxy.endpoint)
    worker = start("python", slow, env={"LITESTREAM_SQL": "on"})
    reader = worker.open(sealed.replica(age_identity_file=key))
    assert reader.one("SELECT count(*) FROM sqlite_schema") > 0
    assert_not_in_a_core(worker.pid, "a replica is read")
    restore(reader, sealed, tmp_path / "restored.db", age_identity_file=str(key))
    assert_not_in_a_core(worker.pid, "a replica was restored")
    options = json.dumps({"age_identity_file": str(key), "follow_interval": "20ms"})
    reader.one("SELECT litestream_follow(?, ?, ?)", sealed.url, str(tmp_path / "copy.db"), options)
    assert_not_in_a_core(worker.pid, "a copy follows")
    own = Location.file(tmp_path / "own")
    db = worker.open(own.primary(tmp_path / "app.db", age_identity_file=key, age_recipient=KEY["recipient"]), "primary")
    fill(db)
    sync(db)
    assert_not_in_a_core(worker.pid, "a primary publishes")
    # The answer stops in the entries of recipients.
    proxy.fault = lambda request: Trickle(after=150) if request.kind == "GET" else None
    worker.begin("exec", name="db", sql="SELECT litestream_restore(?, ?, ?)",
                 params=(slow.full_url, str(tmp_path / "slow.db"), json.dumps({"age_identity_file": str(key)})))
    until(lambda: [request for request in proxy.requests if request.kind == "GET"], 15, "the restore reads")
    assert_not_in_a_core(worker.pid, "a replica is restored")
    core = crash(worker, tmp_path)
    if core is not None:
        assert memory.find(core, FORMS) == {}
        assert bytes.fromhex(KEY["public_hex"]) in core


def crash(worker, folder: Path) -> bytes | None:
    """Has the process crash; its core dump, if this machine puts it into the folder of the process."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    resource.prlimit(worker.pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    os.kill(worker.pid, signal.SIGSEGV)
    until(lambda: worker.ended, 30, "it crashes")
    if not pattern.startswith("core"):
        return None
    [core] = folder.glob("core*")
    return core.read_bytes()
