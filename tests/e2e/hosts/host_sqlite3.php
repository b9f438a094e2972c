<?php // php -d sqlite3.extension_dir=FOLDER; the class takes no URIs, so the library becomes the default VFS
[, $library, , , $url] = $argv;
$first = new SQLite3(":memory:");
$first->loadExtension(basename($library));
$first->querySingle("SELECT litestream_default_vfs(1)");
$configure = $first->prepare("SELECT litestream_configure(?, ?)");
foreach (["primary" => "app.db", "replica" => "reader.db"] as $role => $path) {
    $configure->bindValue(1, $path);
    $configure->bindValue(2, json_encode(["replica" => $url, "role" => $role]));
    $configure->execute()->fetchArray();
}

$db = new SQLite3("app.db");
$db->exec("CREATE TABLE t(x)");
$db->exec("INSERT INTO t VALUES (41)");
$db->querySingle("SELECT litestream_sync()");
$reader = new SQLite3("reader.db");
echo $reader->querySingle("SELECT x + 1 FROM t"), "\n";
