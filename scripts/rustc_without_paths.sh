#!/bin/sh
# cargo's RUSTC_WRAPPER while scripts/dist.py builds: adds what takes the folders of this machine out of the library. Given to cargo
# as flags, they would be part of the names of symbols, and these of the bytes of the library.
rustc=$1
shift
IFS='
'
# shellcheck disable=SC2086 # one argument in each line
exec "$rustc" "$@" $DIST_RUSTC_FLAGS
