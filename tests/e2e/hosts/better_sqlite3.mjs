import Database from "better-sqlite3";
import { connect } from "sqlite-litestream";

const [, , url] = process.argv;
const db = connect(Database, "app.db", { replica: [url, url + "-2"] });
db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (41)");
db.prepare("SELECT litestream_sync()").get();
const reader = connect(Database, "reader.db", { replica: url + "-2", role: "replica" });
console.log(reader.prepare("SELECT x + 1 AS y FROM t").get().y);
