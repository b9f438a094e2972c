#!/bin/sh
# Fetches an OpenSSH server from Debian's packages, without installing it, where the machine has none: fetch-sshd.sh FOLDER.
# Versions and digests are pinned. What cannot be fetched is said, and is no error: the tests that need it then say it again.
set -eu
folder=$1
version=1:9.2p1-2+deb12u10
server=933cd92a2329f9bf26d22660a834ae18ebdbe8df9c6127e4d9fcb098dac9cf72
# What that server is linked to and a small system lacks.
wrap_version=7.6.q-32
wrap=cbce2669a3ba4d74cfdc52b14f38014893e23d85a33d109a3422c342eefc55f8

missing() {
    echo "no OpenSSH server is on this machine, and $1: install openssh-server, or the tests of SFTP fail" >&2
    exit 0
}

if PATH=$PATH:/usr/sbin command -v sshd > /dev/null; then
    mkdir -p "$folder"
    exit 0
fi
command -v apt-get > /dev/null || missing "it has no apt-get to fetch one"
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
cd "$temporary"
apt-get -qq -o APT::Sandbox::User=root download "openssh-server:amd64=$version" "libwrap0:amd64=$wrap_version" ||
    missing "version $version cannot be fetched from its packages"
printf '%s  %s\n' "$server" "$(echo openssh-server_*.deb)" "$wrap" "$(echo libwrap0_*.deb)" > digests
sha256sum --check --quiet digests || missing "what was fetched is not version $version"
mkdir -p "$folder"
for package in ./*.deb; do
    dpkg -x "$package" "$folder"
done
