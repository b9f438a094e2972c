#!/usr/bin/env bash
# Runs scripts/demo.py in the first Python here whose SQLite loads extensions.
set -euo pipefail
cd "$(dirname "$0")/.."
loads='import sqlite3; sqlite3.connect(":memory:").enable_load_extension(True)'
for python in python3 /usr/bin/python3; do
    if "$python" -c "$loads" 2>/dev/null; then
        exec "$python" scripts/demo.py
    fi
done
# No module of the system's does: apsw, in the folder of the tests' packages.
echo "no python3 here has a sqlite3 module that loads extensions; using the package apsw in .venv"
make --no-print-directory "${VENV:-.venv}/.stamp"
exec "${VENV:-.venv}/bin/python" scripts/demo.py
