-- What every replicated database of this process is doing: role, replica, position, lag, last error.
--
--   .load ./dist/litestream_vfs
--   .open 'file:app.db?vfs=litestream&replica=s3://bucket/app'
--   .read sql/status.sql

.mode line
SELECT * FROM litestream_status;
.mode list
