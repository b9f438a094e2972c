#!/usr/bin/env bash
# Installs, on Debian or Ubuntu and as root, the hosts that `make test` otherwise skips.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends \
    binutils default-jdk-headless openssl golang-github-mattn-go-sqlite3-dev golang-go libdbd-sqlite3-perl libsqlite3-dev libsqlite3-tcl \
    libxerial-sqlite-jdbc-java php-cli php-sqlite3 r-cran-rsqlite ruby-sqlite3 tcl >/dev/null
