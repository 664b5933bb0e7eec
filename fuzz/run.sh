#!/usr/bin/env bash
# Runs the fuzz targets, one after the other: fuzz/run.sh [SECONDS [TARGET...]]
#
# SECONDS for each (10 if not told). What is found anew stays in fuzz/target/corpus/TARGET for the next run;
# fuzz/corpus/TARGET, which is committed, is only read. Ends with the first input that breaks a promise: its file,
# and how to try it again, are printed.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    printf 'fuzz/run.sh: %s\n' "$*" >&2
    exit 1
}

seconds=${1:-10}
[[ $seconds =~ ^[0-9]+$ ]] || fail "$seconds is no number of seconds"
shift || true
all=(fuzz/fuzz_targets/*.rs)
all=("${all[@]##*/}")
targets=("$@")
[ $# -gt 0 ] || targets=("${all[@]%.rs}")
for target in "${targets[@]}"; do
    [ -e "fuzz/fuzz_targets/$target.rs" ] || fail "no target $target; there are ${all[*]%.rs}"
done
command -v cargo-fuzz >/dev/null || fail "cargo-fuzz is missing: cargo install --locked cargo-fuzz"

cargo=(cargo)
if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
    cargo=(cargo +nightly)
else
    # The sanitizer is a feature of nightly compilers, which stable ones have and keep shut.
    export RUSTC_BOOTSTRAP=1
fi
"${cargo[@]}" fuzz build

for target in "${targets[@]}"; do
    found="fuzz/target/corpus/$target" log="fuzz/target/$target.log"
    mkdir -p "$found" "fuzz/corpus/$target"
    # A gibibyte is far more than any input may cost, and so are 20 s.
    if ! "${cargo[@]}" fuzz run "$target" "$found" "fuzz/corpus/$target" -- -max_total_time="$seconds" \
        -rss_limit_mb=1024 -timeout=20 -max_len=8192 -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        fail "$target found something; all of it is in $log"
    fi
    awk -v target="$target" '
        /stat::number_of_executed_units/ { runs = $2 }
        /stat::peak_rss_mb/ { rss = $2 }
        / cov: / { for (i = 1; i < NF; i++) { if ($i == "cov:") cov = $(i + 1); if ($i == "corp:") corp = $(i + 1) } }
        END {
            if (runs == "") { print target ": no figures in the log" > "/dev/stderr"; exit 1 }
            printf "%-8s %9d inputs, %6d edges, corpus %s, at most %s MB\n", target, runs, cov, corp, rss
        }' "$log"
done
