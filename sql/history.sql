-- The points that a replica can be restored to, the latest first.
--
--   .load ./dist/litestream_vfs
--   .parameter set @url 's3://bucket/app'
--   .parameter set @limit 20                                            (optional; default 100)
--   .read sql/history.sql

.mode box
SELECT txid, time, pages, bytes, level FROM litestream_history(@url) LIMIT coalesce(@limit, 100);
.mode list
