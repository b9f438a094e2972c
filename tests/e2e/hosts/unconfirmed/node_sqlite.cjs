const { DatabaseSync } = require("node:sqlite");
const { connect } = require("sqlite-litestream");
const replica = `${process.env.REPLICA}?endpoint=${process.env.ENDPOINT}`;
const db = connect(DatabaseSync, "app.db", { replica, commit: "replicated", commitTimeout: "300ms" });
db.exec("CREATE TABLE t(x)");
console.log("ready");
process.stdin.once("data", () => {
  try {
    db.exec("INSERT INTO t VALUES (1)");
  } catch (e) {
    console.log(`${e.name}: ${e.message} (${e.code}, ${e.errcode})`);
  }
  console.log(db.prepare("SELECT count(*) AS n FROM t").get().n);
  process.exit();
});
