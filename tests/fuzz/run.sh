#!/bin/sh
# Runs one fuzz target: run.sh TARGET SECONDS
set -eu
cd "$(dirname "$0")"
target=$1
seconds=$2
golden=../golden/ltx
corpus=corpus/$target
mkdir -p "$corpus"
case $target in
ltx_sealed) for file in ../golden/ltx4/*/ltx/*/*.ltx; do
        cp "$file" "$corpus/$(echo "${file#../golden/ltx4/}" | tr / -)"
    done ;;
pack) python3 seeds.py "$corpus" ;;
ltx_*) for file in "$golden"/*/*/*.ltx; do
        cp "$file" "$corpus/$(echo "${file#"$golden"/}" | tr / -)"
    done ;;
esac
# Coverage flags are unstable; the code is safe Rust, so the address sanitizer would find little.
export RUSTC_BOOTSTRAP=1
exec nice cargo fuzz run --fuzz-dir . --sanitizer none "$target" "$corpus" -- \
    -max_total_time="$seconds" -timeout=10 -max_len=20000 -print_final_stats=1
