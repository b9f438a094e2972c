package require sqlite3
lassign $argv library primary replica
sqlite3 first :memory:
first enable_load_extension 1
first eval {SELECT load_extension($library)}

sqlite3 db $primary -uri 1
db eval {CREATE TABLE t(x); INSERT INTO t VALUES (41); SELECT litestream_sync()}
sqlite3 reader $replica -uri 1
puts [reader onecolumn {SELECT x + 1 FROM t}]
