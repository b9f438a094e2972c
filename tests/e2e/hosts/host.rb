require "sqlite3"
library, primary, replica = ARGV
first = SQLite3::Database.new(":memory:")
first.enable_load_extension(true)
first.load_extension(library)

db = SQLite3::Database.new(primary)
db.execute("CREATE TABLE t(x)")
db.execute("INSERT INTO t VALUES (41)")
db.get_first_value("SELECT litestream_sync()")
reader = SQLite3::Database.new(replica)
puts reader.get_first_value("SELECT x + 1 FROM t")
