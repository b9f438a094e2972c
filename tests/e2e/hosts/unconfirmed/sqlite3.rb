require "sqlite3"
library, primary = ARGV
first = SQLite3::Database.new(":memory:")
first.enable_load_extension(true)
first.load_extension(library)
db = SQLite3::Database.new(primary)
db.execute("CREATE TABLE t(x)")
puts "ready"
$stdout.flush
$stdin.gets
begin
  db.execute("INSERT INTO t VALUES (1)")
rescue SQLite3::Exception => e
  puts "#{e.class}: #{e.message}"
end
puts db.get_first_value("SELECT count(*) FROM t")
