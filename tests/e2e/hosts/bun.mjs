import { Database } from "bun:sqlite";
import { connect } from "sqlite-litestream";

const [, , url] = process.argv;
const db = connect(Database, "app.db", { replica: url, syncInterval: "100ms" });
db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (41)");
db.query("SELECT litestream_sync()").get();
const reader = connect(Database, "reader.db", { replica: url, role: "replica" });
console.log(reader.query("SELECT x + 1 AS y FROM t").get().y);
// An empty folder: what is in the replica is there before the open returns.
db.close();
const restored = connect(Database, "elsewhere.db", { replica: url, restore: "missing" });
if (restored.query("SELECT x FROM t").get().x !== 41) throw new Error("it was not restored");
