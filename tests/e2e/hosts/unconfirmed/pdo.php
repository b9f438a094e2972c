<?php // php -d sqlite3.extension_dir=FOLDER
[, $library, $primary] = $argv;
$first = new SQLite3(":memory:");
$first->loadExtension(basename($library));
$db = new PDO("sqlite:" . $primary);
$db->exec("CREATE TABLE t(x)");
echo "ready\n";
fgets(STDIN);
try {
    $db->exec("INSERT INTO t VALUES (1)");
} catch (Exception $e) {
    echo get_class($e), ": ", $e->getMessage(), "\n";
}
echo $db->query("SELECT count(*) FROM t")->fetchColumn(), "\n";
