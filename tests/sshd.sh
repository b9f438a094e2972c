#!/bin/sh
# An OpenSSH server for tests: sshd.sh PORT FOLDER.
#
# It is `sshd` of this machine, or the one that `make tools` fetched, or the one that LITESTREAM_TEST_SSHD names. FOLDER gets
# the server's key (host, host.pub), a key that it lets in (id, id.pub), the name of the only user (user) and a folder for
# files (files). As root it would need a user of its own, so it runs as `nobody`, from a copy that `nobody` can read.
set -eu
port=$1 folder=$2
tools=$(cd "$(dirname "$0")/.." && pwd)/.tools/openssh
installed=$(PATH=$PATH:/usr/sbin command -v sshd || echo "$tools/usr/sbin/sshd")
sshd=${LITESTREAM_TEST_SSHD:-$installed}
if [ ! -x "$sshd" ]; then
    echo "no SSH server at $sshd: install openssh-server, run make tools, or name one in LITESTREAM_TEST_SSHD" >&2
    exit 1
fi
if [ ! -e "$folder/host" ]; then
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$folder/host"
    ssh-keygen -q -t ed25519 -N '' -C '' -f "$folder/id"
    mkdir -p "$folder/lib" "$folder/files"
    cp "$sshd" "$folder/sshd"
    [ ! -e "$tools/usr/lib" ] || find "$tools/usr/lib" -name 'libwrap.so*' -exec cp -P {} "$folder/lib" \;
    cp "$folder/id.pub" "$folder/authorized_keys"
    cat > "$folder/config" <<END
Port $port
ListenAddress 127.0.0.1
HostKey $folder/host
PidFile none
AuthorizedKeysFile $folder/authorized_keys
StrictModes no
UsePAM yes
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
Subsystem sftp internal-sftp
END
fi
export LD_LIBRARY_PATH="$folder/lib"
if [ "$(id -u)" != 0 ]; then
    id -un > "$folder/user"
    exec "$folder/sshd" -D -e -f "$folder/config"
fi
echo nobody > "$folder/user"
chown -R nobody: "$folder"
exec setpriv --reuid=nobody --regid="$(id -g nobody)" --clear-groups "$folder/sshd" -D -e -f "$folder/config"
