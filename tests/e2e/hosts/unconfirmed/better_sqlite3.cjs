const Database = require("better-sqlite3");
const { connect } = require("sqlite-litestream");
const replica = `${process.env.REPLICA}?endpoint=${process.env.ENDPOINT}`;
const db = connect(Database, "app.db", { replica, commit: "replicated", commitTimeout: "300ms" });
db.exec("CREATE TABLE t(x)");
console.log("ready");
process.stdin.once("data", () => {
  try {
    db.exec("INSERT INTO t VALUES (1)");
  } catch (e) {
    console.log(`${e.name}: ${e.message} (${e.code})`);
  }
  console.log(db.prepare("SELECT count(*) FROM t").pluck().get());
  process.exit();
});
