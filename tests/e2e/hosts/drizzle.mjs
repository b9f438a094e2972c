import Database from "better-sqlite3";
import { drizzle } from "drizzle-orm/better-sqlite3";
import { sql } from "drizzle-orm";
import { integer, sqliteTable } from "drizzle-orm/sqlite-core";
import { connect } from "sqlite-litestream";

const [, , url] = process.argv;
const t = sqliteTable("t", { x: integer("x") });
const db = drizzle(connect(Database, "app.db", { replica: url }));
db.run(sql`CREATE TABLE t(x)`);
db.transaction((transaction) => transaction.insert(t).values({ x: 41 }).run());
db.get(sql`SELECT litestream_sync()`);
const reader = drizzle(connect(Database, "reader.db", { replica: url, role: "replica" }));
console.log(reader.select({ y: sql`${t.x} + 1` }).from(t).get().y);
