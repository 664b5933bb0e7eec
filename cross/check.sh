#!/usr/bin/env bash
# Checks what cross/build.sh made: statically linked, no interpreter, at most 5 MB (x86_64: 5.5 MB), runs in
# an empty root directory; and with --demo, that `smidge demo` passes. Needs root. ARM binaries run under qemu-user-static where the
# machine is another one, registered with binfmt_misc for as long as this runs.
#   cross/check.sh [--demo] [PLATFORM…]        # default: all there are in dist/
set -euo pipefail
cd "$(dirname "$0")/.."

# Bytes. The one for servers holds aws-lc's code and tables for several generations of processors, and is
# over the 5 MB that are wanted of all.
largest_of() { if [ "$1" = linux-amd64 ]; then echo 5500000; else echo 5000000; fi; }
die() { printf 'cross: FAILED: %s\n' "$*" >&2; exit 1; }

demo=
if [ "${1:-}" = --demo ]; then demo=1; shift; fi
[ $# -gt 0 ] || set -- $(cd dist && ls)
command -v file >/dev/null && command -v readelf >/dev/null ||
    die "file and readelf are needed: apt-get install file binutils"
[ "$(id -u)" = 0 ] || die "an empty root directory takes chroot: run it as root"

registered=()
root=$(mktemp -d)
clean() {
    for name in ${registered[@]+"${registered[@]}"}; do echo -1 >"/proc/sys/fs/binfmt_misc/$name" || true; done
    rm -rf "$root"
}
trap clean EXIT

# Lets ARM binaries start like the machine's own, unless they do already.
emulate() {
    local name=$1 rules=/usr/lib/binfmt.d/$1.conf
    [ ! -e "/proc/sys/fs/binfmt_misc/$name" ] || return 0
    [ -e "$rules" ] || die "$name is not here: apt-get install qemu-user-static"
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    head -1 "$rules" >/proc/sys/fs/binfmt_misc/register
    registered+=("$name")
}

for platform in "$@"; do
    binary=dist/$platform/smidge
    [ -x "$binary" ] || die "$binary is not there"
    case $(uname -m)/$platform in
        x86_64/linux-amd64 | aarch64/linux-arm64) ;;
        */linux-arm64) emulate qemu-aarch64 ;;
        aarch64/linux-arm-*) ;;
        */linux-arm-*) emulate qemu-arm ;;
    esac
    file -b "$binary" | grep -q "statically linked\|static-pie linked" || die "$binary is not static: $(file -b "$binary")"
    ! readelf -lW "$binary" | grep -q INTERP || die "$binary asks for an interpreter"
    size=$(stat -c %s "$binary")
    [ "$size" -le "$(largest_of "$platform")" ] || die "$binary has $size bytes, more than $(largest_of "$platform")"
    cp "$binary" "$root/smidge"
    version=$(chroot "$root" /smidge --version) || die "$binary does not run in an empty root directory"
    align=$(readelf -lW "$binary" | awk '$1 == "LOAD" { print $NF }' | sort -u | tr '\n' ' ')
    printf 'cross: %s: %s, %s bytes, segments aligned to %s\n' "$platform" "$version" "$size" "$align"
    [ -z "$demo" ] || "$binary" demo | tail -1 || die "$platform: the demo does not pass"
done
