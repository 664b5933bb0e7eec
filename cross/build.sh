#!/usr/bin/env bash
# Builds fully static binaries (musl): dist/<os>-<arch>[-variant]/smidge, named as OCI names platforms.
#
#   cross/build.sh x86_64            # dist/linux-amd64/smidge
#   cross/build.sh aarch64 armv7     # dist/linux-arm64/smidge, dist/linux-arm-v7/smidge
#   cross/build.sh all               # these and arm (dist/linux-arm-v6)
#
# zig is the C compiler and linker for every target (ring is C and assembly). Rust's standard library for
# musl comes from whatever this machine has; the script looks in this order and says what it took:
#   1. rustup has the target: it is used;
#   2. rustup has the library's source (rust-src): it is built here;
#   3. Debian's rustc-web, cargo-web and rust-web-src: it is built here by those.
# Otherwise it says what to install, and ends with 69. SMIDGE_CROSS=target|source|debian takes one way only.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'cross: %s\n' "$*"; }
die() {
    printf 'cross: %s\n' "$1" >&2
    shift
    for line in "$@"; do printf '  %s\n' "$line" >&2; done
    exit 69
}

usage() {
    printf 'usage: cross/build.sh TARGET…, each of them x86_64, aarch64, armv7, arm or all\n' >&2
    exit 2
}

[ $# -gt 0 ] || usage
wanted=()
for word in "$@"; do
    case $word in
        x86_64 | aarch64 | armv7 | arm) wanted+=("$word") ;;
        all) wanted+=(x86_64 aarch64 armv7 arm) ;;
        *) usage ;;
    esac
done

triple_of() {
    case $1 in
        x86_64 | aarch64) echo "$1-unknown-linux-musl" ;;
        armv7 | arm) echo "$1-unknown-linux-musleabihf" ;;
    esac
}

platform_of() {
    case $1 in
        x86_64) echo linux-amd64 ;;
        aarch64) echo linux-arm64 ;;
        armv7) echo linux-arm-v7 ;;
        arm) echo linux-arm-v6 ;;
    esac
}

zigbuild=$(command -v cargo-zigbuild) || die "cargo-zigbuild is not here; install it with zig:" \
    "pip install ziglang==0.15.2 cargo-zigbuild" "or: cargo install --locked cargo-zigbuild, and zig from ziglang.org"
zig=zig
if ! command -v zig >/dev/null; then
    zig="python3 -m ziglang"
    $zig version >/dev/null 2>&1 || die "zig is not here; install it:" "pip install ziglang==0.15.2"
fi

# The library's source that a compiler brings, if it does.
library_of() { printf '%s/lib/rustlib/src/rust/library' "$("$1" --print sysroot)"; }
source_of() { [ -f "$(library_of "$1")/Cargo.lock" ]; }

# Which way there is to a standard library for a triple.
way_to() {
    local only=${SMIDGE_CROSS:-any} installed
    if [[ $only =~ ^(any|target)$ ]] && command -v rustup >/dev/null; then
        installed=$(rustup target list --installed 2>/dev/null || true)
        grep -qx "$1" <<<"$installed" && echo target && return
    fi
    if [[ $only =~ ^(any|source)$ ]] && command -v rustc >/dev/null && source_of rustc; then
        echo source && return
    fi
    if [[ $only =~ ^(any|debian)$ ]] && [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] &&
        source_of /usr/bin/rustc; then
        echo debian && return
    fi
    echo none
}

target_dir=${CARGO_TARGET_DIR:-target}/cross
# A standard library of one's own does without what symbolises backtraces: the binary has no symbols.
own_std=("-Zbuild-std=std,panic_abort" -Zbuild-std-features=optimize_for_size)
# A panic names file and line; each column of them would be a constant of its own.
own_flags="-Clink-self-contained=no -Zlocation-detail=file,line"
cargo_home=${CARGO_HOME:-$HOME/.cargo}

build() {
    local name=$1 triple platform way began=$SECONDS
    triple=$(triple_of "$name") platform=$(platform_of "$name") way=$(way_to "$triple")
    # Neither the names of this machine's directories nor their length get into the binary, nor cargo's name for
    # crates.io. A panic aborts: the tables for unwinding are never read.
    local sources=$cargo_home/registry/src
    local flags="--remap-path-prefix=$PWD=. --remap-path-prefix=$sources= -Cforce-unwind-tables=no"
    flags="$flags --remap-path-prefix=$sources/index.crates.io-1949cf8c6b5b557f/="
    local build_std=() tools="$target_dir/tools" settings=()
    local c_flags="-fno-asynchronous-unwind-tables -fno-unwind-tables"
    # Instructions that repeat are put into functions (cross/README.md); LLVM does so by itself for AArch64.
    # It is not position-independent there either way (cross/README.md), so that its code need not be.
    # Functions that differ in constants alone become one; the flag is for the last compiler, which sees all code.
    local last=()
    if [ "$name" = x86_64 ]; then
        flags="$flags -Cllvm-args=-enable-machine-outliner=always -Crelocation-model=static"
        last=(-Cllvm-args=-enable-global-merge-func)
    fi
    case $way in
        target) say "$triple: rustup has its standard library" ;;
        source)
            say "$triple: its standard library is built from the source that $(rustc --version) brings"
            flags="$flags $own_flags --remap-path-prefix=$(library_of rustc)=std"
            build_std=("${own_std[@]}")
            settings=(RUSTC_BOOTSTRAP=1 SMIDGE_UNWINDS=no)
            ;;
        debian)
            say "$triple: its standard library is built from Debian's rust-web-src with $(/usr/bin/rustc --version)"
            flags="$flags $own_flags --remap-path-prefix=$(library_of /usr/bin/rustc)=std"
            build_std=("${own_std[@]}")
            # First on PATH, too: some build scripts ask for `rustc` by its name.
            mkdir -p "$tools"
            for tool in cargo rustc; do ln -sf "/usr/bin/$tool" "$tools/$tool"; done
            settings=(RUSTC_BOOTSTRAP=1 SMIDGE_UNWINDS=no RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo
                "PATH=$(realpath "$tools"):$PATH")
            ;;
        none)
            die "there is no standard library for $triple here; one of these brings it:" \
                "rustup target add $triple" \
                "rustup component add rust-src" \
                "apt-get install rustc-web cargo-web rust-web-src      # Debian"
            ;;
    esac
    local variable
    variable=CARGO_TARGET_$(tr 'a-z-' 'A-Z_' <<<"$triple")_RUSTFLAGS
    env "${settings[@]}" "$variable=$flags" "CFLAGS_${triple//-/_}=$c_flags" \
        CARGO_TARGET_DIR="$target_dir" CARGO_ZIGBUILD_CACHE_DIR="$(realpath -m "$target_dir")/zigbuild" \
        CARGO_ZIGBUILD_PYTHON_PATH=/nowhere CARGO_ZIGBUILD_ZIG_PATH="$PWD/cross/zig.sh" SMIDGE_ZIG="${SMIDGE_ZIG:-$zig}" \
        "$zigbuild" rustc --profile static --features small --locked --bin smidge --target "$triple" \
        ${build_std[@]+"${build_std[@]}"} -- ${last[@]+"${last[@]}"}
    mkdir -p "dist/$platform"
    install -m 755 "$target_dir/$triple/static/smidge" "dist/$platform/smidge"
    say "dist/$platform/smidge: $(stat -c %s "dist/$platform/smidge") bytes, $((SECONDS - began)) s"
}

for name in "${wanted[@]}"; do build "$name"; done
