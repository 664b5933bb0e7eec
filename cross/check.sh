#!/usr/bin/env bash
# Checks what cross/build.sh made: statically linked, no interpreter, no symbols, at most 5,750,000 bytes, built for no
# newer processor than its platform has, runs in an empty root directory; and with --demo, that `smidge demo` passes.
# Needs root. ARM binaries run under qemu-user-static where the machine is another one, on the oldest processor of
# their platform, registered with binfmt_misc for as long as this runs.
#   cross/check.sh [--demo] [PLATFORM…]        # default: all there are in dist/
set -euo pipefail
cd "$(dirname "$0")/.."

# Bytes, of any of them: cross/README.md.
largest=5750000
die() { printf 'cross: FAILED: %s\n' "$*" >&2; exit 1; }

demo=''
if [ "${1:-}" = --demo ]; then demo=1; shift; fi
if [ $# = 0 ]; then
    for directory in dist/*/; do [ ! -d "$directory" ] || set -- "$@" "$(basename "$directory")"; done
    [ $# -gt 0 ] || die "there is nothing in dist/: run cross/build.sh first"
fi
for tool in file readelf; do
    command -v $tool >/dev/null || die "$tool is not here: apt-get install file binutils"
done
[ "$(id -u)" = 0 ] || die "an empty root directory takes chroot: run it as root"

registered=()
root=$(mktemp -d)
clean() {
    for name in ${registered[@]+"${registered[@]}"}; do echo -1 >"/proc/sys/fs/binfmt_misc/$name" || true; done
    rm -rf "$root"
}
trap clean EXIT

# Lets ARM binaries start like the machine's own, child processes too, unless they do already.
emulate() {
    local name=$1 rules=/usr/lib/binfmt.d/$1.conf
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc ||
        die "binfmt_misc cannot be mounted: ARM binaries do not start here"
    [ ! -e "/proc/sys/fs/binfmt_misc/$name" ] || return 0
    [ -e "$rules" ] || die "$name is not here: apt-get install qemu-user-static"
    head -1 "$rules" >/proc/sys/fs/binfmt_misc/register
    registered+=("$name")
}

for platform in "$@"; do
    binary=dist/$platform/smidge
    [ -x "$binary" ] || die "$binary is not there"
    # The oldest processor of the platform, as qemu calls it, and the newest that the binary may ask for.
    case $platform in
        linux-amd64) processor='' newest='' ;;
        linux-arm64) processor=cortex-a53 newest='' ;;
        linux-arm-v7) processor=cortex-a7 newest='v[4-7].*' ;;
        linux-arm-v6) processor=arm1176 newest='v[4-6].*' ;;
        *) die "$platform is no platform: linux-amd64, linux-arm64, linux-arm-v7, linux-arm-v6" ;;
    esac
    case $(uname -m)/$platform in
        x86_64/linux-amd64 | aarch64/linux-arm64) processor='' ;;
        */linux-amd64) die "an x86-64 binary does not run on this machine ($(uname -m))" ;;
        */linux-arm64) emulate qemu-aarch64 ;;
        aarch64/linux-arm-*) processor='' ;;
        */linux-arm-*) emulate qemu-arm ;;
    esac
    run=(env)
    [ -z "$processor" ] || run=(env "QEMU_CPU=$processor")

    kind=$(file -b "$binary")
    grep -q 'statically linked\|static-pie linked' <<<"$kind" || die "$binary is not static: $kind"
    ! readelf -lW "$binary" | grep -q INTERP || die "$binary asks for an interpreter"
    grep -q ', stripped' <<<"$kind" || die "$binary has symbols: $kind"
    size=$(stat -c %s "$binary")
    [ "$size" -le "$largest" ] || die "$binary has $size bytes, more than $largest"
    if [ -n "$newest" ]; then
        architecture=$(readelf -A "$binary" | sed -n 's/^ *Tag_CPU_arch: *//p')
        grep -qx "$newest" <<<"$architecture" || die "$binary is built for ARM ${architecture:-of no known version}"
    fi
    cp "$binary" "$root/smidge"
    version=$("${run[@]}" chroot "$root" /smidge --version) || die "$binary does not run in an empty root directory"
    align=$(readelf -lW "$binary" | awk '$1 == "LOAD" { print $NF }' | sort -u | tr '\n' ' ')
    printf 'cross: %s: %s, %s bytes, segments aligned to %s%s\n' "$platform" "$version" "$size" "$align" \
        "${architecture:+, ARM $architecture}${processor:+, run on $processor}"
    [ -z "$demo" ] || "${run[@]}" "$binary" demo | tail -1 || die "$platform: the demo does not pass"
    architecture=''
done
