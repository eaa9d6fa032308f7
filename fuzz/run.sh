#!/usr/bin/env bash
# Fuzzes one target, led by coverage: fuzz/run.sh TARGET [libFuzzer's options, such as -runs=10000000 or -max_total_time=600].
# What it finds goes to fuzz/found/TARGET, a crash to fuzz/crashes/TARGET-…; `fuzz/run.sh TARGET minimise` puts the fewest inputs that
# reach as much into the kept corpus. FEATURES=site builds the targets `configuration` and `checkpoint` too. Needs a C++ compiler.
# The options for coverage are rustc's own, so the stable toolchain will do.
set -euo pipefail
cd "$(dirname "$0")"
target=${1:?which target?}; shift
# The versions that the workspace has.
cp ../Cargo.lock Cargo.lock
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares"
export RUSTC_WRAPPER=$PWD/rustc.sh
# With a target stated, build scripts and macros are not instrumented.
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build -q --release --target "$host" ${FEATURES:+--features "$FEATURES"}
fuzzer=target/$host/release/nearside-fuzz
export NEARSIDE_FUZZ_TARGET=$target
mkdir -p "found/$target" "corpus/$target" crashes
if [ "${1:-}" = minimise ]; then
    kept=$(mktemp -d)
    "$fuzzer" -merge=1 -max_len=2048 "$kept" "corpus/$target" "found/$target" 2>/dev/null
    rm -rf "corpus/$target" && mv "$kept" "corpus/$target" && chmod 755 "corpus/$target"
    exit
fi
"$fuzzer" -artifact_prefix="crashes/$target-" -max_len=4096 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 "$@" "found/$target" "corpus/$target"
