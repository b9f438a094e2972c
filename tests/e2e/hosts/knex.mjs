import Database from "better-sqlite3";
import createKnex from "knex";
import { configure } from "sqlite-litestream";

const [, , url] = process.argv;
configure(Database, "app.db", { replica: url });
configure(Database, "reader.db", { replica: url, role: "replica" });
const open = (filename) => createKnex({ client: "better-sqlite3", connection: { filename }, useNullAsDefault: true });
const db = open("app.db");
await db.schema.createTable("t", (table) => table.integer("x"));
await db.transaction((transaction) => transaction("t").insert({ x: 41 }));
await db.raw("SELECT litestream_sync()");
const reader = open("reader.db");
console.log((await reader("t").first(reader.raw("x + 1 AS y"))).y);
await Promise.all([db.destroy(), reader.destroy()]);
