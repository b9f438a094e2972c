const Database = require("better-sqlite3");
const { connect, getLoadablePath, load } = require("sqlite-litestream");
const [, , url] = process.argv;

const db = connect(Database, "app.db", { replica: url, syncInterval: "100ms" }, { timeout: 9000 });
db.exec("CREATE TABLE t(x); INSERT INTO t VALUES (41)");
db.prepare("SELECT litestream_sync()").get();
const setting = "SELECT value FROM litestream_config WHERE setting = 'sync_interval'";
if (db.prepare(setting).pluck().get() !== "100ms") throw new Error("a setting was lost");
const reader = connect(Database, "reader.db", { replica: url, role: "replica" });
console.log(reader.prepare("SELECT x + 1 FROM t").pluck().get());

const console_ = new Database(":memory:");
load(console_);
console_.prepare("SELECT litestream_restore(?, 'restored.db')").get(url);
if (!getLoadablePath().includes("sqlite-litestream-")) throw new Error(getLoadablePath());
