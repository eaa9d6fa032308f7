#!/usr/bin/env bash
# rustc as `fuzz/run.sh` calls it: only this project's crates and the parsers under them are instrumented. libFuzzer goes through all
# counters of the binary after every input, and those of a runtime, a TLS library or a cipher say nothing of what was parsed.
set -euo pipefail
rustc=$1; shift
name=
[ "${1:-}" = --crate-name ] && name=$2
case $name in
    nearside_telemetry) ;;
    '' | nearside_* | arrow_buffer | arrow_data | arrow_ipc | arrow_schema | flatbuffers) exec "$rustc" "$@" ;;
    base64 | ciborium* | csv* | password_hash | serde | serde_core | serde_json | toml | toml_* | winnow) exec "$rustc" "$@" ;;
esac
kept=()
for option in "$@"; do
    case $option in
        -Cpasses=sancov-module | -Cllvm-args=-sanitizer-coverage-*) ;;
        *) kept+=("$option") ;;
    esac
done
exec "$rustc" "${kept[@]}"
