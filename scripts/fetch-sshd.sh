#!/bin/sh
# Fetches an OpenSSH server from the packages of a Debian-like system, without installing it, where the machine has none:
# fetch-sshd.sh FOLDER. What cannot be fetched is said, and is no error: the tests that need it then say it again.
set -eu
folder=$1
mkdir -p "$folder"
if PATH=$PATH:/usr/sbin command -v sshd > /dev/null; then
    exit 0
fi
cd "$folder"
if ! command -v apt-get > /dev/null || ! apt-get -qq download openssh-server libwrap0; then
    echo "no OpenSSH server is on this machine, and apt-get fetches none: install openssh-server, or the tests of SFTP fail" >&2
    exit 0
fi
for package in ./*.deb; do
    dpkg -x "$package" .
done
rm -f ./*.deb
