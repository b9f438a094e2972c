const { DatabaseSync } = require("node:sqlite");
const { connect } = require("sqlite-litestream");

const [, , url] = process.argv;
const db = connect(DatabaseSync, "app.db", { replica: url });
db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (41)");
db.prepare("SELECT litestream_sync()").get();
const reader = connect(DatabaseSync, "reader.db", { replica: url, role: "replica" });
console.log(reader.prepare("SELECT x + 1 AS y FROM t").get().y);
