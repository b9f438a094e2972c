"""Configurations as Litestream documents them for clouds, unchanged, buckets' names and all: the hosts that they name are played
by this machine, which has certificates for them.

What the library writes is restored with the same file, by itself and by real Litestream, and both ask the same hosts for the same
paths.
"""

import re
import subprocess

import pytest

from harness.paths import LITESTREAM, clean_env
from harness.s3 import S3Server, credentials
from harness.sql import fill, sync
from harness.tls import Hosts

# Each: the documented text, the domain below which buckets are hosts, the hosts, and the host and path of the replica.
CLOUDS = {
    "s3": ("""
dbs:
  - path: {folder}/db
    replica:
      url: s3://mybkt.litestream.io/db
      region: us-east-1
""", None, ["s3.us-east-1.amazonaws.com"], ("s3.us-east-1.amazonaws.com", "/mybkt.litestream.io/db/")),
    "s3, a name that can be a host": ("""
dbs:
  - path: {folder}/db
    replica:
      type: s3
      bucket: mybkt
      path: db
      region: us-east-1
""", "s3.us-east-1.amazonaws.com", ["mybkt.s3.us-east-1.amazonaws.com"], ("mybkt.s3.us-east-1.amazonaws.com", "/db/")),
    "backblaze": ("""
dbs:
  - path: {folder}/db
    replica:
      type: s3
      bucket: mybkt
      path: db
      endpoint: s3.us-west-000.backblazeb2.com
      force-path-style: true
""", None, ["s3.us-west-000.backblazeb2.com"], ("s3.us-west-000.backblazeb2.com", "/mybkt/db/")),
    "digitalocean": ("""
dbs:
  - path: {folder}/db
    replica:
      url: s3://mybkt.nyc3.digitaloceanspaces.com/db
""", "nyc3.digitaloceanspaces.com", ["mybkt.nyc3.digitaloceanspaces.com"], ("mybkt.nyc3.digitaloceanspaces.com", "/db/")),
}


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_documented_configuration_of_a_cloud_works_unchanged(start, tmp_path, cloud):
    text, domain, names, place = CLOUDS[cloud]
    (tmp_path / "litestream.yml").write_text(text.format(folder=tmp_path))
    server = S3Server(tmp_path / "s3", domain=domain)
    hosts = Hosts(tmp_path / "tls", names, server.port)
    try:
        server.bucket(re.search(r"mybkt(\.litestream\.io)?", text)[0])
        env = {"LITESTREAM_CONFIG": str(tmp_path / "litestream.yml")} | hosts.env | credentials()
        db = start("python", env=env).open(f"file:{tmp_path}/db?vfs=litestream")
        fill(db)
        sync(db)
        written = hosts.requests()
        puts = {(host, path) for method, host, path in written if method == "PUT"}
        assert puts and all(host == place[0] and path.startswith(place[1]) for host, path in puts), written
        hosts.forget()
        theirs = tmp_path / "theirs.db"
        done = subprocess.run([LITESTREAM, "restore", "-config", env["LITESTREAM_CONFIG"], "-o", theirs, tmp_path / "db"],
                              env=clean_env(**env), capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {(host, path) for method, host, path in hosts.requests() if path.endswith(".ltx")} <= puts
        assert start("python").open(theirs, "theirs").content() == db.content()
        ours = tmp_path / "ours.db"
        start("python", env=env).open(":memory:").load().one("SELECT litestream_restore(?, ?)", f"{tmp_path}/db", str(ours))
        assert start("python").open(ours, "ours").content() == db.content()
    finally:
        hosts.close()
        server.stop()
