"""Calls tools with the official client for Python, and prints what came of it.

Arguments: where (a URL, with a token or none; or a command), calls as JSON: [[tool, arguments], ...].
"""

import asyncio
import json
import os
import sys

# Not by PYTHONPATH, which the server that is started has for itself.
sys.path.insert(0, os.environ.pop("CLIENTS"))

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client


def server(where: list[str]):
    if not where[0].startswith("http"):
        return StdioServerParameters(command=where[0], args=where[1:], env=dict(os.environ))
    headers = {"Authorization": f"Bearer {where[1]}"} if where[1:] else {}
    return streamable_http_client(where[0], http_client=httpx2.AsyncClient(headers=headers, timeout=60))


async def main(where: list[str], calls: list) -> dict:
    async with Client(server(where)) as client:
        tools = await client.list_tools()
        results = [await client.call_tool(name, arguments) for name, arguments in calls]
        return {
            "tools": [tool.model_dump(by_alias=True, exclude_none=True) for tool in tools.tools],
            "results": [result.model_dump(by_alias=True, exclude_none=True) for result in results],
        }


print(json.dumps(asyncio.run(main(json.loads(sys.argv[1]), json.loads(sys.argv[2])))))
