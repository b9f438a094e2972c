-- The LTX files of a replica: a summary by level, then each file.
--
--   .load ./dist/litestream_vfs
--   .parameter set @url 's3://bucket/app'
--   .read sql/ltx.sql

.mode column
SELECT level,
       count(*)              AS files,
       sum(size)             AS bytes,
       min(min_txid)         AS first_txid,
       max(max_txid)         AS last_txid
  FROM litestream_ltx(@url)
 GROUP BY level
 ORDER BY level;

SELECT level, min_txid, max_txid, size, timestamp, name FROM litestream_ltx(@url) ORDER BY level, min_txid;
.mode list
.headers off
