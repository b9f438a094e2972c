import { DatabaseSync } from "node:sqlite";
import { connect, load, uri } from "sqlite-litestream";

const [, , url] = process.argv;
const db = connect(DatabaseSync, "app.db", { replica: url }, { allowExtension: true });
load(db);
db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (41)");
db.prepare("SELECT litestream_sync()").get();
// This host takes URIs too.
const reader = new DatabaseSync(uri("anything.db", { replica: url, role: "replica" }), { readOnly: true });
console.log(reader.prepare("SELECT x + 1 AS y FROM t").get().y);
