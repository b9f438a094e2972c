import sqlite3 from "sqlite3";
import { connect } from "sqlite-litestream";

const [, , url] = process.argv;
const done = (call) => new Promise((resolve, reject) => call((error, row) => (error ? reject(error) : resolve(row))));
const db = await connect(sqlite3.Database, "app.db", { replica: url });
await done((callback) => db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (41); SELECT litestream_sync()", callback));
const reader = await connect(sqlite3.Database, "reader.db", { replica: url, role: "replica" });
console.log((await done((callback) => reader.get("SELECT x + 1 AS y FROM t", callback))).y);
await done((callback) => db.close(callback));
