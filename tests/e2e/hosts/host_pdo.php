<?php // php -d sqlite3.extension_dir=FOLDER; the other class loads it, for the process
[, $library, $primary, $replica] = $argv;
$first = new SQLite3(":memory:");
$first->loadExtension(basename($library));

$db = new PDO("sqlite:" . $primary);
$db->exec("CREATE TABLE t(x)");
$db->exec("INSERT INTO t VALUES (41)");
$db->query("SELECT litestream_sync()")->fetchAll();
$reader = new PDO("sqlite:" . $replica);
echo $reader->query("SELECT x + 1 FROM t")->fetchColumn(), "\n";
