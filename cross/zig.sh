#!/bin/sh
# zig, as cross/build.sh has cargo-zigbuild call it: SMIDGE_ZIG with these arguments. An executable is linked once more, with
# identical code folded into one: zig's front end refuses lld's flag for that, but says with -v how it calls lld. Where
# SMIDGE_UNWINDS is "no", with cross/unwind.c in the place of an unwinder.
set -eu
links='' target='' before=''
for word; do
    case $word in
        -c | -E | -S | -shared) links=no ;;
        -o) [ -n "$links" ] || links=yes ;;
    esac
    [ "$before" != -target ] || target=$word
    before=$word
done
# shellcheck disable=SC2086 # words: a command and its first arguments
if [ "$1" != cc ] || [ "$links" != yes ]; then exec $SMIDGE_ZIG "$@"; fi

room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
# shellcheck disable=SC2086
$SMIDGE_ZIG "$@" -v 2>"$room/said" || { cat "$room/said" >&2 && exit 1; }
command=$(sed -n '/^ld\.lld /p' "$room/said" | tail -n 1)
[ -n "$command" ] || { echo "cross: zig did not say how it called lld" >&2 && exit 1; }
if [ "${SMIDGE_UNWINDS:-}" = no ]; then
    # shellcheck disable=SC2086
    $SMIDGE_ZIG cc -target "$target" -Oz -c "$(dirname "$0")/unwind.c" -o "$room/unwind.o"
    command=$(printf '%s' "$command" | sed "s#[^ ]*/libunwind\.a#$room/unwind.o#")
fi
# shellcheck disable=SC2086 # as zig said it
$SMIDGE_ZIG $command --icf=all -O2
