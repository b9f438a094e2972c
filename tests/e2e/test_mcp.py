"""Tools for an assistant, at a port and over standard input and output: those of Litestream's server, and more.

Who is not let in cannot call them: a page of somebody else's, another machine without the token. Who is, reaches no other
replica than those of this server, replaces no file, and writes none but a database beside its own. Nothing that is sent to the
port keeps the program from its commits, or costs it memory.
"""

import json
import os
import socket
import subprocess
import time
from contextlib import ExitStack

import pytest

from harness import mcp, packages
from harness.location import Location
from harness.mcp import TOOLS, call, post, refusal, request, result
from harness.paths import SYSTEM_PYTHON
from harness.proc import reset_peak, peak_rss_kib, rss_kib
from harness.proxy import Hang
from harness.s3 import SECRET_KEY, free_port
from harness.sql import fill, insert, sync
from harness.wait import until

@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def db(start, location, port, tmp_path):
    """A database with a few transactions, whose process offers tools."""
    db = start("python", location).open(location.primary(tmp_path / "app.db", mcp_addr=f"127.0.0.1:{port}", sync_interval="50ms"))
    fill(db)
    sync(db)
    for _ in range(3):
        insert(db)
        sync(db)
    until(lambda: mcp.is_there(port), 10, "tools are offered")
    return db


def test_every_tool(db, location, port, tmp_path):
    greeting = result(port, "initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo={"name": "t", "version": "1"})
    assert greeting["protocolVersion"] == "2025-06-18" and "tools" in greeting["capabilities"]
    assert post(port, {"jsonrpc": "2.0", "method": "notifications/initialized"}, MCP_Protocol_Version="2025-06-18") == (202, "")
    tools = {tool["name"]: tool for tool in result(port, "tools/list")["tools"]}
    assert set(tools) == TOOLS
    hints = {name: (tool["annotations"]["readOnlyHint"], tool["annotations"]["destructiveHint"]) for name, tool in tools.items()}
    assert {name for name, hint in hints.items() if hint != (True, False)} == {"litestream_restore", "litestream_reset"}
    assert hints["litestream_restore"] == (False, False) and hints["litestream_reset"] == (False, True)
    path, url, last = str(tmp_path / "app.db"), location.url, db.one("SELECT litestream_txid()")

    assert call(port, "litestream_version")["version"] == db.one("SELECT litestream_version()")
    info = call(port, "litestream_info")
    assert info["healthy"] and info["open"] == 1 and info["config"] is None
    [listed] = call(port, "litestream_databases")["databases"]
    assert (listed["path"], listed["open"], listed["replicas"][0]["url"]) == (path, True, url)
    status = result(port, "tools/call", name="litestream_status", arguments={"path": path})
    assert "All is well" in status["content"][0]["text"] and "every commit is in the replica" in status["content"][0]["text"]
    assert status["structuredContent"]["open"][0]["replicas"][0]["txid"] == last
    for name in (path, url, url + "/", f"file:{path}?vfs=litestream"):
        files = call(port, "litestream_ltx", path=name, level=0)
        assert files["count"] == len(location.files(0)) and files["replica"] == url
    points = call(port, "litestream_history", path=path, limit=2)
    assert len(points["points"]) == 2 < points["count"] and points["points"][0]["txid"] == last
    first = call(port, "litestream_history", path=path)["points"][-1]
    assert len(call(port, "litestream_restore_plan", path=url, txid=first["txid"])["files"]) == 1
    for arguments in ({"path": path}, {"path": url, "quick": True}):
        verified = call(port, "litestream_verify", **arguments)
        assert verified["restores"] and verified["findings"] == [] and verified["quick"] is arguments.get("quick", False)
    report = call(port, "litestream_restore", path=path, o="copy.db", integrity_check="quick")
    assert report["restored"] and report["path"] == str(tmp_path / "copy.db") and report["txid"] == last
    report = call(port, "litestream_restore", path=url, o=str(tmp_path / "before.db"), txid=first["txid"], parallelism=2)
    assert report["txid"] == first["txid"]
    assert "open as a primary" in refusal(port, "litestream_reset", path=path)
    assert "restore of" in result(port, "tools/call", name="litestream_status", arguments={})["content"][0]["text"]
    needs_path = lambda name: "path" in tools[name]["inputSchema"]["required"]
    said = [post(port, request("tools/call", name=name, arguments={"path": path} if needs_path(name) else {}))[1] for name in TOOLS]
    assert not any(SECRET_KEY in text for text in said)


def test_what_is_restored_is_what_was_there(db, location, start, port, tmp_path):
    call(port, "litestream_restore", path=str(tmp_path / "app.db"), o="copy.db")
    assert start("python").open(tmp_path / "copy.db").content() == db.content()


def test_no_file_is_replaced_and_none_is_written_elsewhere(db, port, tmp_path):
    path = str(tmp_path / "app.db")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.db")}
    (tmp_path / "sub").mkdir()
    (tmp_path / "dangling.db").symlink_to(tmp_path / "sub" / "target.db")
    for output in (None, "app.db", path, "dangling.db"):
        arguments = {"path": path} | ({"o": output} if output else {})
        assert "replace no file" in refusal(port, "litestream_restore", **arguments), output
    assert "replace no file" in refusal(port, "litestream_restore", path=path, o="dangling.db", if_db_not_exists=True)
    assert call(port, "litestream_restore", path=path, if_db_not_exists=True)["restored"] is False
    for output in ("../copy.db", "sub/copy.db", "/tmp/copy.db", "app.db-journal", "app.db-wal", "copy.conf", "copy", ".copy.db", "link.db/../../x.db"):
        assert "new databases into" in refusal(port, "litestream_restore", path=path, o=output), output
    assert "no argument 'force'" in refusal(port, "litestream_restore", path=path, o="copy.db", force=True)
    assert {file: file.read_bytes() for file in before} == before
    assert not list(tmp_path.parent.glob("copy.db")) and not list((tmp_path / "sub").iterdir())


def test_tools_reach_what_this_server_has(db, location, port, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (tmp_path / "secret.txt").write_text("hunter2")
    for name in (f"file://{other}", "s3://169.254.169.254/x?endpoint=http://169.254.169.254", "/etc/passwd", str(tmp_path / "secret.txt")):
        for tool in ("litestream_ltx", "litestream_history", "litestream_restore_plan", "litestream_verify", "litestream_restore", "litestream_reset"):
            assert "is not among what tools reach" in refusal(port, tool, path=name)
        assert "is not among what tools reach" in refusal(port, "litestream_status", path=name)
    for tool in TOOLS - {"litestream_version"}:
        why = refusal(port, tool, **{"path": location.url} if tool not in ("litestream_info", "litestream_databases", "litestream_status") else {},
                      config=str(tmp_path / "secret.txt"))
        assert "no other configuration file" in why and "hunter2" not in why


def test_sql_that_is_off_is_off_for_tools(start, in_folder, port, tmp_path):
    db = start("python", env={"LITESTREAM_SQL": "off"}).open(in_folder.primary(tmp_path / "app.db", mcp_addr=f"127.0.0.1:{port}"))
    fill(db)
    until(lambda: mcp.is_there(port), 10, "tools are offered")
    for tool, arguments in (("litestream_status", {}), ("litestream_history", {"path": in_folder.url})):
        assert "LITESTREAM_SQL=off" in refusal(port, tool, **arguments)


def test_who_is_let_in(start, in_folder, port, tmp_path):
    other = free_port()
    for at, parameters in ((port, {"mcp_addr": f"127.0.0.1:{port}"}), (other, {"mcp_addr": f":{other}", "mcp_token": "s3cret"})):
        fill(start("python").open(Location.file(tmp_path / f"of-{at}").primary(tmp_path / f"{at}.db", **parameters)))
    bearer = {"Authorization": "Bearer s3cret"}
    until(lambda: mcp.is_there(port) and mcp.is_there(other, **bearer), 10, "tools are offered")
    ping = request("ping")
    for path in ("/", "/mcp"):
        assert post(port, ping, path=path)[0] == 200
    # A page of somebody else's, with a name of its own that leads here, or from its own site.
    for headers in ({"Host": "evil.example"}, {"Host": f"evil.example:{port}", "Origin": "http://evil.example"}, {"Origin": "https://evil.example"},
                    {"Origin": "null"}):
        assert post(port, ping, **headers)[0] == 403
    assert post(port, ping, Origin="http://localhost:6274")[0] == 200
    for media in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert post(port, ping, Content_Type=media)[0] == 415
    for headers in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "Basic s3cret"}):
        assert post(other, ping, **headers)[0] == 401
    assert post(other, ping, path="/?token=s3cret")[0] == 401
    assert post(other, ping, Host="db.example", **bearer)[0] == 200
    assert post(other, ping, Origin="https://evil.example", **bearer)[0] == 403
    for method in ("GET", "DELETE", "OPTIONS", "PUT", "HEAD"):
        assert post(port, b"", method=method)[0] == 405
    assert post(port, ping, path="/metrics")[0] == 404
    assert post(port, ping, MCP_Protocol_Version="2024-11-05")[0] == 200
    assert post(port, ping, MCP_Protocol_Version="1999-01-01")[0] == 400
    assert post(port, b"{")[0] == 400
    status, body = post(port, request("resources/list"))
    assert status == 200 and json.loads(body)["error"]["code"] == -32601


def test_other_machines_need_a_token(start, in_folder, port, tmp_path):
    log = tmp_path / "log"
    db = start("python", env={"LITESTREAM_LOG_FILE": str(log)}).open(in_folder.primary(tmp_path / "app.db", mcp_addr=f":{port}"))
    fill(db)
    sync(db)
    until(lambda: log.exists() and "there is no mcp_token" in log.read_text(), 10, "it is said why")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_a_token_that_is_empty_lets_nobody_in(start, in_folder, port, tmp_path):
    """A variable that a unit file or a compose file sets to another one, which is not set."""
    log = tmp_path / "log"
    db = start("python", env={"LITESTREAM_LOG_FILE": str(log), "LITESTREAM_MCP_TOKEN": ""}).open(
        in_folder.primary(tmp_path / "app.db", mcp_addr=f"127.0.0.1:{port}"))
    fill(db)
    sync(db)
    until(lambda: log.exists() and "LITESTREAM_MCP_TOKEN is set to nothing" in log.read_text(), 10, "it is said why")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)


def test_hostile_requests_cost_nothing(db, start, port, tmp_path):
    pid = db.worker.pid
    sync(db)
    reset_peak(pid)
    before = rss_kib(pid)
    big = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"x" * (10 << 20) + b'"}}'
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(big)}\r\n\r\n".encode()
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            try:
                connection.sendall(head + big)
            except OSError:
                pass
            answer = _received(connection)
            assert not answer or b" 413 " in answer.split(b"\r\n")[0]
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(head)
        assert b" 413 " in _received(connection)
    chunked = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(chunked)
        assert b" 411 " in _received(connection)
    assert post(port, b"[" * 60_000)[0] == 400
    assert post(port, [request("ping")] * 16)[0] == 200
    assert post(port, [request("ping")] * 17)[0] == 400
    insert(db)
    sync(db)
    assert peak_rss_kib(pid) - before < 8 << 10
    assert mcp.is_there(port)


def _received(connection: socket.socket) -> bytes:
    """What comes until the other side is gone."""
    received = b""
    try:
        while part := connection.recv(4096):
            received += part
    except OSError:
        pass
    return received


def test_who_says_nothing_or_little_keeps_nobody_away(db, port):
    pid = db.worker.pid
    before = rss_kib(pid)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"
    with ExitStack() as silent:
        for n in range(3000):
            if n % 1000 == 999:
                began = time.monotonic()
                assert mcp.is_there(port) and time.monotonic() - began < 5
                insert(db)
                sync(db)
            connection = socket.create_connection(("127.0.0.1", port), 10)
            if n >= 2200:
                silent.enter_context(connection)
            else:
                connection.close()
            if n % 2 and connection.fileno() >= 0:
                connection.send(head[: n % len(head)])
        assert len(os.listdir(f"/proc/{pid}/fd")) < 200
        assert mcp.is_there(port)
        insert(db)
        sync(db)
        assert rss_kib(pid) - before < 8 << 10


def test_a_call_ends_with_who_waits_for_it(start, through_proxy, proxy, port, tmp_path):
    db = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db", mcp_addr=f"127.0.0.1:{port}"))
    fill(db)
    sync(db)
    until(lambda: mcp.is_there(port), 10, "tools are offered")
    proxy.fault = lambda request: Hang() if request.kind == "LIST" else None
    message = json.dumps(request("tools/call", name="litestream_verify", arguments={"path": through_proxy.url})).encode()
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(message)}\r\n\r\n".encode()
    with ExitStack() as waiting:
        for _ in range(4):
            waiting.enter_context(socket.create_connection(("127.0.0.1", port), 5)).sendall(head + message)
        busy = until(lambda: (answer := result(port, "tools/call", name="litestream_version", arguments={}))["isError"] and answer, 20, "all are at work")
        assert "4 calls are under way" in busy["content"][0]["text"]
        assert mcp.is_there(port), "what is no call is answered beside them"
    until(lambda: not result(port, "tools/call", name="litestream_version", arguments={})["isError"], 20, "they have ended")


def test_one_restore_is_under_way_at_a_time(start, through_proxy, proxy, port, tmp_path):
    """Each makes sure that there is space, and another one would count on the same."""
    db = start("python", through_proxy).open(through_proxy.primary(tmp_path / "app.db", mcp_addr=f"127.0.0.1:{port}"))
    fill(db)
    sync(db)
    until(lambda: mcp.is_there(port), 10, "tools are offered")
    proxy.fault = lambda request: Hang() if request.kind == "LIST" else None
    message = json.dumps(request("tools/call", name="litestream_restore", arguments={"path": through_proxy.url, "o": "a.db"})).encode()
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(message)}\r\n\r\n".encode()

    def other() -> dict:
        return result(port, "tools/call", name="litestream_restore", arguments={"path": through_proxy.url, "o": "b.db"})

    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(head + message)
        until(lambda: any(request.kind == "LIST" for request in list(proxy.requests)[-1:]), 20, "it asks for the files")
        assert "a restore by a tool is under way" in other()["content"][0]["text"]
    proxy.fault = lambda request: None
    until(lambda: not other()["isError"], 30, "it has ended")
    assert not (tmp_path / "a.db").exists() and (tmp_path / "b.db").exists()


def test_the_next_process_takes_over(start, port, tmp_path):
    workers = []
    for name in ("a.db", "b.db"):
        workers.append(start("python"))
        location = Location.file(tmp_path / f"of-{name}")
        fill(db := workers[-1].open(location.primary(tmp_path / name, mcp_addr=f"127.0.0.1:{port}")))
        sync(db)
        until(lambda: mcp.is_there(port), 10, "tools are offered")

    def seen() -> set[str]:
        return {database["path"] for database in call(port, "litestream_databases")["databases"]}

    both = {str(tmp_path / "a.db"), str(tmp_path / "b.db")}
    until(lambda: seen() == both, 10, "the databases of both are listed")
    workers[0].kill()
    died = time.monotonic()
    until(lambda: mcp.is_there(port), 10, "the next one answers")
    assert time.monotonic() - died < 1
    until(lambda: seen() == {str(tmp_path / "b.db")}, 10, "without the first")
    assert call(port, "litestream_history", path=str(tmp_path / "b.db"))["count"] >= 1


@pytest.fixture
def configured(tmp_path, port):
    """A configuration file with a database that is not there, and one that nobody has open."""
    config = tmp_path / "litestream.yml"
    config.write_text(f"mcp-addr: '127.0.0.1:{port}'\nmcp-token: s3cret\ndbs:\n- path: {tmp_path}/app.db\n  replica:\n    url: file://{tmp_path}/replica\n"
                      f"- path: {tmp_path}/gone.db\n  replica:\n    url: file://{tmp_path}/replica\n")
    return config


def test_the_address_and_the_token_are_in_litestreams_file(start, configured, port, tmp_path):
    worker = start("python", env={"LITESTREAM_CONFIG": str(configured)})
    db = worker.open(f"file:{tmp_path}/app.db?vfs=litestream")
    fill(db)
    sync(db)
    bearer = {"Authorization": "Bearer s3cret"}
    until(lambda: mcp.is_there(port, **bearer), 10, "tools are offered")
    assert post(port, request("ping"))[0] == 401
    rows = {row[0]: tuple(row[1:]) for row in db.rows("SELECT setting, value, origin, note FROM litestream_config")}
    assert rows["mcp_addr"] == (f"127.0.0.1:{port}", f"{configured}:1", None)
    assert "s3cret" not in str(rows["mcp_token"])
    info = call(port, "litestream_info", bearer, config=str(configured))
    assert (info["config"], info["databases"], info["open"]) == (str(configured), 2, 1)
    status = result(port, "tools/call", bearer, name="litestream_status", arguments={})
    assert "gone.db" in status["content"][0]["text"] and "is not there" in status["content"][0]["text"]
    # What is written there would be published as its newest state.
    other = result(port, "tools/call", bearer, name="litestream_restore", arguments={"path": str(tmp_path / "app.db"), "o": "gone.db"})
    assert other["isError"] and "replicas of its own" in other["content"][0]["text"] and not (tmp_path / "gone.db").exists()
    # The disaster that all this is for.
    report = call(port, "litestream_restore", bearer, path=str(tmp_path / "gone.db"))
    assert report["restored"] and start("python").open(tmp_path / "gone.db").content() == db.content()
    db.close()
    assert call(port, "litestream_reset", bearer, path=str(tmp_path / "app.db"))["waiting_files"] == 0


CALLS = [("litestream_info", {}), ("litestream_databases", {}), ("litestream_status", {}), ("litestream_version", {}),
         ("litestream_ltx", {"path": "URL"}), ("litestream_history", {"path": "URL"}), ("litestream_restore_plan", {"path": "URL"}),
         ("litestream_verify", {"path": "URL", "quick": True}), ("litestream_restore", {"path": "URL", "o": "copy.db"}),
         ("litestream_reset", {"path": "URL"})]


@pytest.mark.parametrize("client", [mcp.by_python, mcp.by_node])
@pytest.mark.parametrize("token", [None, "s3cret"])
def test_the_official_clients_over_http(start, in_folder, client, token, port, tmp_path):
    parameters = {"mcp_token": token} if token else {}
    db = start("python").open(in_folder.primary(tmp_path / "app.db", mcp_addr=f"127.0.0.1:{port}", **parameters))
    fill(db)
    sync(db)
    until(lambda: mcp.is_there(port, **{"Authorization": f"Bearer {token}"}), 10, "tools are offered")
    calls = [(name, {key: in_folder.url if value == "URL" else value for key, value in given.items()}) for name, given in CALLS]
    _check(client([f"http://127.0.0.1:{port}/mcp", *([token] if token else [])], calls))
    assert start("python").open(tmp_path / "copy.db").content() == db.content()


@pytest.mark.parametrize("client", [mcp.by_python, mcp.by_node])
def test_the_official_clients_over_standard_output(start, in_folder, client, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    config = tmp_path / "litestream.yml"
    config.write_text(f"dbs:\n- path: {tmp_path}/app.db\n  replica:\n    url: {in_folder.url}\n")
    calls = [(name, {key: in_folder.url if value == "URL" else value for key, value in given.items()}) for name, given in CALLS]
    env = packages.python_env(LITESTREAM_LOG_LEVEL="debug")
    _check(client([SYSTEM_PYTHON, "-m", "sqlite_litestream", "mcp", "-config", str(config)], calls, **env))
    assert start("python").open(tmp_path / "copy.db").content() == db.content()


def _check(seen: dict) -> None:
    """Every tool is listed, and does what it is there for."""
    assert {tool["name"] for tool in seen["tools"]} == TOOLS
    assert all(tool["inputSchema"]["type"] == "object" and "title" in tool["annotations"] for tool in seen["tools"])
    for (name, _), answer in zip(CALLS, seen["results"], strict=True):
        # A URL is no database whose state could be forgotten.
        assert answer.get("isError", False) is (name == "litestream_reset"), (name, answer)


@pytest.fixture
def spoken(tmp_path):
    """Starts the command line for an assistant."""
    started = []

    def start(*arguments: str, **env: str) -> subprocess.Popen:
        started.append(subprocess.Popen([SYSTEM_PYTHON, "-m", "sqlite_litestream", "mcp", *arguments], cwd=tmp_path, text=True, bufsize=1,
                                        env=packages.python_env(**env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def _say(process: subprocess.Popen, message: object) -> None:
    process.stdin.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
    process.stdin.flush()


def test_nothing_but_messages_is_on_standard_output(start, in_folder, spoken, tmp_path):
    db = start("python").open(in_folder.primary(tmp_path / "app.db"))
    fill(db)
    sync(db)
    process = spoken(in_folder.url, LITESTREAM_LOG_LEVEL="trace")
    for message in (request("initialize", protocolVersion="2025-03-26"), {"jsonrpc": "2.0", "method": "notifications/initialized"}, "", "no JSON", '{"id": 7}'):
        _say(process, message)
    restore = request("tools/call", name="litestream_restore", arguments={"path": in_folder.url, "o": "copy.db"})
    _say(process, restore)
    answers = [json.loads(process.stdout.readline()) for _ in range(4)]
    assert answers[0]["result"]["protocolVersion"] == "2025-03-26"
    assert [answer["error"]["code"] for answer in answers[1:3]] == [-32700, -32600]
    assert answers[3]["id"] == restore["id"] and not answers[3]["result"]["isError"]
    process.stdin.close()
    assert process.stdout.read() == "" and process.wait(20) == 0
    assert start("python").open(tmp_path / "copy.db").content() == db.content()


def test_a_call_is_cancelled(start, in_s3, through_proxy, proxy, spoken, tmp_path):
    fill(db := start("python", in_s3).open(in_s3.primary(tmp_path / "app.db")))
    sync(db)
    proxy.fault = lambda request: Hang()
    process = spoken(through_proxy.full_url, **through_proxy.env)
    slow, ping = request("tools/call", name="litestream_verify", arguments={"path": through_proxy.url}), request("ping")
    _say(process, slow)
    until(lambda: proxy.requests, 20, "the store is asked")
    _say(process, ping)
    assert json.loads(process.stdout.readline())["id"] == ping["id"], "a ping is answered meanwhile"
    _say(process, {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": slow["id"]}})
    process.stdin.close()
    assert process.wait(20) == 0 and process.stdout.read() == "", "what is cancelled is not answered"


def test_the_command_line_says_what_it_cannot(spoken):
    for arguments, env, why in ((("app.db",), {}, "not the URL of a replica"), ((), {"LITESTREAM_SQL": "off"}, "LITESTREAM_SQL=off")):
        process = spoken(*arguments, **env)
        _, errors = process.communicate(timeout=30)
        assert process.returncode != 0 and why in errors, errors
