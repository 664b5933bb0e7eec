#!/usr/bin/env bash
# Tests what cross/build.sh, cross/check.sh and build.sh say and how they end, on machines that lack this or that:
# copies of the scripts, with a PATH of stand-ins. Compiles nothing, touches neither dist/ nor target/.
#   cross/test.sh
# shellcheck disable=SC2016 # the stand-ins expand their variables themselves
set -euo pipefail
cd "$(dirname "$0")/.."

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
mkdir "$room/cross" "$room/bin"
cp cross/build.sh cross/check.sh "$room/cross/"
cp build.sh "$room/"

# What the scripts may find on every machine. What is not named here is not there.
for tool in bash env dirname basename tr cat mkdir ln realpath install stat sed grep uname id mktemp rm cp; do
    ln -s "$(command -v $tool)" "$room/bin/$tool"
done

# A stand-in: its name, and what it does.
stand_in() { printf '#!%s\n%s\n' "$(command -v bash)" "$2" >"$room/bin/$1" && chmod +x "$room/bin/$1"; }

tests=0
# What was asked and what came of it, and the end of the test.
fail() {
    printf 'test: FAILED: %s: %s\n--- it ended with %s and said:\n' "$what" "$1" "$code" >&2
    cat "$room/said" >&2
    exit 1
}
# A name for what has to hold; then a command, run with the stand-ins only.
holds() {
    what=$1 code=0
    shift
    env -i "PATH=$room/bin" "HOME=$room" "$@" >"$room/said" 2>&1 </dev/null || code=$?
    tests=$((tests + 1))
}
ends_with() { [ "$code" = "$1" ] || fail "it had to end with $1"; }
says() { grep -qF -- "$1" "$room/said" || fail "it had to say: $1"; }
never_says() { ! grep -qF -- "$1" "$room/said" || fail "it may not say: $1"; }
builds_nothing() { if [ -e "$room/dist" ] || [ -e "$room/asked" ]; then fail "it built something"; fi; }

zigbuild_asked='printf "%s\n" "$@" >"$HOME/asked"; env >"$HOME/environment"
while [ $# -gt 0 ]; do case $1 in --target) triple=$2 ;; esac; shift; done
mkdir -p "$CARGO_TARGET_DIR/$triple/static" && echo built >"$CARGO_TARGET_DIR/$triple/static/smidge"'

for arguments in "" mips "x86_64 mips" "x86_64-unknown-linux-musl" "--help"; do
    # shellcheck disable=SC2086 # a list of words
    holds "usage for '$arguments'" "$room/cross/build.sh" $arguments
    ends_with 2
    says "usage: cross/build.sh TARGET…, each of them x86_64, aarch64, armv7, arm or all"
    builds_nothing
done

holds "without cargo-zigbuild, how to install it" "$room/cross/build.sh" aarch64
ends_with 69
says "cargo-zigbuild is not here"
says "pip install ziglang==0.15.2 cargo-zigbuild"
builds_nothing

stand_in cargo-zigbuild "$zigbuild_asked"
holds "without zig, how to install it" "$room/cross/build.sh" aarch64
ends_with 69
says "zig is not here"
says "pip install ziglang==0.15.2"
builds_nothing

stand_in python3 '[ "$*" = "-m ziglang version" ] && echo 0.15.2'
for pair in x86_64:x86_64-unknown-linux-musl aarch64:aarch64-unknown-linux-musl \
    armv7:armv7-unknown-linux-musleabihf arm:arm-unknown-linux-musleabihf; do
    holds "without a standard library for ${pair%:*}, three ways to one" SMIDGE_CROSS=target "$room/cross/build.sh" "${pair%:*}"
    ends_with 69
    says "there is no standard library for ${pair#*:} here"
    says "rustup target add ${pair#*:}"
    says "rustup component add rust-src"
    says "apt-get install rustc-web cargo-web rust-web-src"
    builds_nothing
done

# A rustup with another target, and a compiler without the library's source.
stand_in rustup 'echo aarch64-unknown-linux-musl'
stand_in rustc 'case $1 in --print) echo "$HOME/sysroot" ;; *) echo "rustc 1.96.0 (a stand-in)" ;; esac'
holds "a compiler without its library's source is no way" SMIDGE_CROSS=source "$room/cross/build.sh" arm
ends_with 69
says "there is no standard library for arm-unknown-linux-musleabihf here"
builds_nothing
holds "another target's library is no way" SMIDGE_CROSS=target "$room/cross/build.sh" aarch64 arm
ends_with 69
says "there is no standard library for arm-unknown-linux-musleabihf here"

rm -rf "$room/dist" "$room/asked" "$room/target"
holds "rustup's library is taken where it is" "$room/cross/build.sh" aarch64
ends_with 0
says "aarch64-unknown-linux-musl: rustup has its standard library"
says "dist/linux-arm64/smidge: 6 bytes"
! grep -q build-std "$room/asked" || fail "it built a standard library"

mkdir -p "$room/sysroot/lib/rustlib/src/rust/library"
touch "$room/sysroot/lib/rustlib/src/rust/library/Cargo.lock"
rm -rf "$room/dist" "$room/asked" "$room/target"
holds "else the compiler's source is, and it is said" "$room/cross/build.sh" armv7
ends_with 0
says "armv7-unknown-linux-musleabihf: its standard library is built from the source that rustc 1.96.0 (a stand-in) brings"
says "dist/linux-arm-v7/smidge: 6 bytes"
grep -q -- '-Zbuild-std=std,panic_abort' "$room/asked" || fail "it did not build a standard library"
grep -q '^RUSTC_BOOTSTRAP=1$' "$room/environment" || fail "a stable compiler refuses -Z without RUSTC_BOOTSTRAP"
! grep '^CARGO_TARGET_.*_RUSTFLAGS=' "$room/environment" | grep -q -- "--remap-path-prefix=$room=/" ||
    fail "the directory's name gets into the binary"

stand_in cargo-zigbuild 'echo "error: could not compile" >&2; exit 101'
rm -rf "$room/dist" "$room/target"
holds "a build that fails leaves nothing in dist/" "$room/cross/build.sh" aarch64
ends_with 101
says "error: could not compile"
[ ! -e "$room/dist/linux-arm64/smidge" ] || fail "it left a binary"

rm -rf "$room/dist"
for tool in file readelf; do stand_in $tool true; done
holds "a check of nothing fails" "$room/cross/check.sh"
ends_with 1
says "there is nothing in dist/: run cross/build.sh first"
holds "a check of a binary that is not there fails" "$room/cross/check.sh" linux-arm64
ends_with 1
says "dist/linux-arm64/smidge is not there"

holds "without an engine, a sentence" "$room/build.sh"
ends_with 1
says "no Docker engine answers: start it, or set DOCKER_HOST"
stand_in docker true
holds "without a binary, how to get it" SMIDGE_PLATFORM=linux/arm/v6 "$room/build.sh"
ends_with 1
says "dist/linux-arm-v6/smidge is not there: run cross/build.sh arm first"
holds "a platform that is none is refused" SMIDGE_PLATFORM=linux/riscv64 "$room/build.sh"
ends_with 1
says "no target for linux/riscv64"
never_says "run cross/build.sh"

printf 'test: %s cases hold\n' "$tests"
