-- Restores a replica to a database file, and checks the file.
--
--   .load ./dist/litestream_vfs
--   .parameter set @url 's3://bucket/app'
--   .parameter set @path 'restored.db'
--   .parameter set @options '{"timestamp": "2026-01-31T12:00:00Z"}'    (optional; also txid, force)
--   .read sql/restore.sql

.mode line
SELECT json_extract(report, '$.path')     AS path,
       json_extract(report, '$.txid')     AS txid,
       json_extract(report, '$.pages')    AS pages,
       json_extract(report, '$.bytes')    AS bytes,
       json_extract(report, '$.files')    AS files,
       json_extract(report, '$.duration') AS duration
  FROM (SELECT litestream_restore(@url, @path, coalesce(@options, '{}')) AS report);

ATTACH @path AS restored;
PRAGMA restored.integrity_check;
DETACH restored;
.mode list
