use strict;
use DBI;
my ($library, $primary, $replica) = @ARGV;
my $first = DBI->connect("dbi:SQLite::memory:", "", "", {RaiseError => 1});
$first->sqlite_enable_load_extension(1);
$first->sqlite_load_extension($library);

my $db = DBI->connect("dbi:SQLite:uri=$primary", "", "", {RaiseError => 1});
$db->do("CREATE TABLE t(x)");
$db->do("INSERT INTO t VALUES (41)");
$db->selectrow_array("SELECT litestream_sync()");
my $reader = DBI->connect("dbi:SQLite:uri=$replica", "", "", {RaiseError => 1});
print $reader->selectrow_array("SELECT x + 1 FROM t"), "\n";
