"""An assistant that calls the tools of the library, by raw requests; and the official clients."""

import http.client
import itertools
import json
import os
import subprocess
from pathlib import Path

import pytest

from .paths import ROOT, VENV_PYTHON, clean_env

MCP_PYTHON = Path(os.environ.get("MCP_PYTHON") or ROOT / ".tools" / "mcp-python")
"""The official client for Python, for `VENV_PYTHON`."""
MCP_NODE = Path(os.environ.get("MCP_NODE") or ROOT / ".tools" / "mcp-node")
"""The folder whose `node_modules` has the official client for JavaScript."""
HOSTS = Path(__file__).resolve().parents[1] / "hosts" / "mcp"

TOOLS = {"litestream_info", "litestream_databases", "litestream_status", "litestream_version", "litestream_ltx", "litestream_history",
         "litestream_restore_plan", "litestream_verify", "litestream_restore", "litestream_reset"}

_ids = itertools.count(1)


def request(method: str, **params: object) -> dict:
    return {"jsonrpc": "2.0", "id": next(_ids), "method": method, "params": params}


def post(port: int, message: object, method: str = "POST", path: str = "/", **headers: str) -> tuple[int, str]:
    """Status and body of the answer to a message, which is bytes or what JSON is made of."""
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    given = {"Host": f"127.0.0.1:{port}", "Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    try:
        connection.request(method, path, body, {**given, **{name.replace("_", "-"): value for name, value in headers.items()}})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def result(port: int, method: str, headers: dict[str, str] | None = None, **params: object) -> dict:
    """The result of a request."""
    message = request(method, **params)
    status, body = post(port, message, **(headers or {}))
    assert status == 200, (status, body)
    answer = json.loads(body)
    assert answer["id"] == message["id"] and "error" not in answer, answer
    return answer["result"]


def call(port: int, tool: str, headers: dict[str, str] | None = None, **arguments: object) -> dict:
    """What a tool answers."""
    answer = result(port, "tools/call", headers, name=tool, arguments=arguments)
    assert not answer["isError"], answer
    return answer["structuredContent"]


def refusal(port: int, tool: str, **arguments: object) -> str:
    """Why a tool does not do it."""
    answer = result(port, "tools/call", name=tool, arguments=arguments)
    assert answer["isError"] and "structuredContent" not in answer, answer
    return answer["content"][0]["text"]


def is_there(port: int, **headers: str) -> bool:
    try:
        return post(port, request("ping"), **headers)[0] == 200
    except OSError:
        return False


def by_python(where: list[str], calls: list, **env: str) -> dict:
    """What the official client for Python sees."""
    if not (MCP_PYTHON / "mcp").exists():
        pytest.skip("there is no client for Python here: make tools")
    return _run([VENV_PYTHON, HOSTS / "client.py"], where, calls, env | {"CLIENTS": str(MCP_PYTHON)})


def by_node(where: list[str], calls: list, **env: str) -> dict:
    """What the official client for JavaScript sees."""
    if not (MCP_NODE / "node_modules").exists():
        pytest.skip("there is no client for JavaScript here: make tools")
    return _run(["node", HOSTS / "client.mjs"], where, calls, env | {"MCP_NODE": str(MCP_NODE)})


def _run(command: list, where: list[str], calls: list, env: dict[str, str]) -> dict:
    command = [*map(str, command), json.dumps(where), json.dumps(calls)]
    done = subprocess.run(command, env=clean_env() | env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)
