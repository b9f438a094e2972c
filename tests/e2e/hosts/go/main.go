package main

import (
	"database/sql"
	"fmt"
	"os"

	"github.com/mattn/go-sqlite3"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	sql.Register("litestream", &sqlite3.SQLiteDriver{Extensions: []string{os.Args[1]}})
	first, err := sql.Open("litestream", ":memory:")
	must(err)
	must(first.Ping())

	db, err := sql.Open("litestream", os.Args[2])
	must(err)
	for _, statement := range []string{"CREATE TABLE t(x)", "INSERT INTO t VALUES (41)", "SELECT litestream_sync()"} {
		_, err = db.Exec(statement)
		must(err)
	}
	reader, err := sql.Open("litestream", os.Args[3])
	must(err)
	var answer int
	must(reader.QueryRow("SELECT x + 1 FROM t").Scan(&answer))
	fmt.Println(answer)
}
