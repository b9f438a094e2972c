// Calls tools with the official client for JavaScript, and prints what came of it.
//
// Arguments: where (a URL, with a token or none; or a command), calls as JSON: [[tool, arguments], ...].
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.env.MCP_NODE}/`);
const load = (name) => import(pathToFileURL(require.resolve(`@modelcontextprotocol/sdk/client/${name}.js`)));
const { Client } = await load("index");
const { StdioClientTransport } = await load("stdio");
const { StreamableHTTPClientTransport } = await load("streamableHttp");

const [where, calls] = process.argv.slice(2).map((text) => JSON.parse(text));
const headers = where[1] ? { Authorization: `Bearer ${where[1]}` } : {};
const transport = where[0].startsWith("http")
  ? new StreamableHTTPClientTransport(new URL(where[0]), { requestInit: { headers } })
  : new StdioClientTransport({ command: where[0], args: where.slice(1), env: process.env });
const client = new Client({ name: "test", version: "1" });
await client.connect(transport);
const { tools } = await client.listTools();
const results = [];
for (const [name, args] of calls) results.push(await client.callTool({ name, arguments: args }));
console.log(JSON.stringify({ tools, results }));
await client.close();
