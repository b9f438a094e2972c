#!/usr/bin/env bash
# Says which system package is missing for `make test`, and how to get it.
set -u
missing=0
need() { # what, Debian package, why
    missing=1
    printf 'missing: %s (%s)\n    Debian or Ubuntu: apt-get install %s\n' "$1" "$3" "$2"
}
command -v cargo >/dev/null || {
    missing=1
    echo "missing: cargo (the library is written in Rust): install Rust from your distribution or rustup"
}
command -v cc >/dev/null || need cc gcc "links the library"
command -v git >/dev/null || need git git "source control"
command -v "${PYTHON:-python3}" >/dev/null || need python3 python3 "runs the end-to-end tests"
"${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null ||
    need "python3 venv" python3-venv "the tests keep their packages in .venv"
command -v sqlite3 >/dev/null || need "sqlite3 shell" sqlite3 "a host that the tests drive"
command -v ssh-keygen >/dev/null || need ssh-keygen openssh-client "makes keys, and is the agent, in the tests of SFTP"
command -v openssl >/dev/null || need openssl openssl "makes certificates in the tests of NATS"
command -v npm >/dev/null || need npm npm "installs Azurite, which stands for Azure in the tests"
system_python=${SYSTEM_PYTHON:-/usr/bin/python3}
if [ ! -x "$system_python" ]; then
    need "$system_python" python3 "a host that the tests drive; SYSTEM_PYTHON names another"
elif ! "$system_python" -c 'import sqlite3; sqlite3.connect(":memory:").enable_load_extension(True)' 2>/dev/null; then
    missing=1
    echo "missing: a python3 whose sqlite3 module loads extensions ($system_python does not); SYSTEM_PYTHON names another"
fi
exit $missing
