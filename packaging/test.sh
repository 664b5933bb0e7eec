#!/usr/bin/env bash
# The Debian package as an administrator has it: built twice, looked at by lintian, and, in a copy of this machine's own root
# directory that is gone afterwards (an overlay in memory), installed over an older version, used as the unit's user, removed
# and purged. The unit is looked at by systemd-analyze, the completions by their shells. Needs root, Debian and
# dist/linux-amd64/smidge (or this machine's); says what is missing.
#   packaging/test.sh [--pages DIR]       # with manual pages and completions that were made before
set -euo pipefail
cd "$(dirname "$0")/.."

# What systemd-analyze security may say of the unit at most, in tenths: packaging/README.md.
worst=13

say() { printf 'packaging: %s\n' "$*"; }
die() { printf 'packaging: FAILED: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "this must run as root: it installs a package, in a root directory of its own"
for tool in dpkg-deb apt-get lintian systemd-analyze systemd-sysusers strace zsh fish setpriv unshare curl man; do
    command -v "$tool" >/dev/null || die "$tool is not here: .ci/run packages-deb installs what this needs"
done
arch=$(dpkg --print-architecture)

if [ "${1:-}" != --inside ]; then
    # Mounts and networks of its own, which end with it.
    room=$(mktemp -d)
    trap 'rm -rf "$room"' EXIT
    mkdir "$room/out"
    pages=$room/pages
    if [ "${1:-}" = --pages ]; then
        pages=$2
    else
        SMIDGE_PAGES=$pages cargo test --locked --lib cli::pages >"$room/made" 2>&1 || die "$(cat "$room/made")"
    fi
    build() { packaging/deb.sh --pages "$pages" "$arch" >"$room/said" || die "$(cat "$room/said")"; }
    package=dist/smidge_$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)-1_$arch.deb
    build && cp "$package" "$room/out/first.deb"
    # As somebody else, later.
    (umask 077 && build)
    cmp "$package" "$room/out/first.deb" || die "built twice, $package is not the same"
    SMIDGE_DEB_VERSION=0.0.1-1 packaging/deb.sh --pages "$pages" "$arch" >/dev/null
    mv "dist/smidge_0.0.1-1_$arch.deb" "$room/out/older.deb"
    say "$package, $(stat -c %s "$package") bytes, the same when built twice"

    # The maintainer's address is the releaser's to give; there is no bug of Debian's that it closes.
    lintian --allow-root --fail-on error,warning --suppress-tags bogus-mail-host,bogus-mail-host-in-debian-changelog,initial-upload-closes-no-bugs \
        "$room/out/first.deb" || die "lintian"
    say "lintian has nothing to say"
    bash -n "$pages/smidge.bash" && zsh -n "$pages/_smidge" && fish -n "$pages/smidge.fish"
    for page in "$pages"/*.1; do
        warned=$(LC_ALL=C.UTF-8 MANROFFSEQ='' MANWIDTH=80 man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
        [ -z "$warned" ] || die "$page: $warned"
    done
    say "$(find "$pages" -name '*.1' | wc -l) manual pages without a warning; completions for three shells"
    unshare --mount --net --pid --fork --kill-child "$0" --inside "$room/out"
    exit
fi

out=$2
ip link set lo up
over=$(mktemp -d)
mount -t tmpfs none "$over"
mkdir "$over/upper" "$over/work" "$over/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$over/upper,workdir=$over/work" "$over/root" || die "no overlay can be mounted"
root=$over/root
mount -t proc proc "$root/proc" && mount -t tmpfs none "$root/tmp" && mount -t tmpfs none "$root/run"
mount --rbind /dev "$root/dev"
cp "$out"/*.deb "$root/tmp/"
in_root() { chroot "$root" "$@"; }
apt() { in_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends "$@" >"$out/apt" 2>&1 || die "apt-get $*: $(cat "$out/apt")"; }
# shellcheck disable=SC2016 # dpkg's own
version() { in_root dpkg-query -W -f '${db:Status-Abbrev}${Version}' smidge 2>/dev/null || true; }
exists() { [ -e "$root$1" ] || die "$1 is not there"; }
gone() { [ ! -e "$root$1" ] || die "$1 is still there"; }

# A root node of this machine's may have left them.
rm -rf "$root/var/lib/smidge" "$root/etc/smidge"
if in_root dpkg -s smidge >/dev/null 2>&1; then die "smidge is installed on this machine"; fi
apt install /tmp/older.deb
[ "$(version)" = "ii 0.0.1-1" ] || die "it is not installed: $(version)"
in_root id smidge >/dev/null || die "there is no user smidge"
gone /etc/systemd/system/multi-user.target.wants/smidge.service
gone /var/lib/smidge/key

# What systemd makes before it starts the unit, and gives it for its rights.
in_root install -d -m 700 -o smidge -g smidge /var/lib/smidge
node=(chroot "$root" setpriv --reuid smidge --regid smidge --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all
    env -i PATH=/usr/bin:/bin SMIDGE__NODE__NAME=under-test)
runs() {
    "${node[@]}" "$@" smidge run >"$out/log" 2>&1 &
    running=$!
    for _ in $(seq 300); do in_root smidge health >/dev/null 2>&1 && return; sleep 0.1; done
    die "the node does not run: $(cat "$out/log")"
}
stops() {
    kill "$running"
    wait "$running" || die "it ends with $?: $(cat "$out/log")"
}
# It traces from beside the node, which gets its signals as ever.
strace=(strace -D -f -qq -o /tmp/calls)
runs
peer=$(in_root smidge status --json | sed 's/.*"peer":"\([^"]*\)".*/\1/')
echo '# mine' >>"$root/etc/smidge/config.toml"
stops
exists /var/lib/smidge/key
kept=$(in_root stat -c '%U %a' /var/lib/smidge/key)
[ "$kept" = "smidge 600" ] || die "the key is $kept"

apt install /tmp/first.deb
[[ $(version) != "ii 0.0.1-1" && $(version) == "ii "* ]] || die "it is not upgraded: $(version)"
grep -q '^# mine$' "$root/etc/smidge/config.toml" || die "the upgrade took the administrator's configuration away"
in_root smidge config check /etc/smidge/config.toml >/dev/null
runs "${strace[@]}"
[[ $(in_root smidge status --json) == *"$peer"*under-test* || $(in_root smidge status --json) == *under-test*"$peer"* ]] ||
    die "another peer id after the upgrade"
in_root smidge sub -t home --count 1 >"$out/heard" 2>&1 &
heard=$!
for _ in $(seq 100); do in_root smidge pub -t home -m hello >/dev/null 2>&1 && break; sleep 0.1; done
wait "$heard" || die "nothing is heard: $(cat "$out/heard")"
grep -qx hello "$out/heard" || die "something else is heard: $(cat "$out/heard")"
stops
say "installed, upgraded with its key and the administrator's configuration; runs as smidge"

# What the unit's filter lets through, as far as this machine's systemd knows it.
flat() {
    local word
    for word in $(systemd-analyze syscall-filter "$1" | sed -n '2,$s/^ *\([@a-z_0-9-]*\)$/\1/p'); do
        case $word in @*) flat "$word" ;; *) echo "$word" ;; esac
    done
}
flat @system-service | sort -u >"$out/system-service"
{ flat @privileged; flat @resources; } | sort -u >"$out/denied"
comm -23 "$out/system-service" "$out/denied" >"$out/let"
# The program itself is started by systemd, before the filter.
sed -n 's/^[0-9]* *\([a-z_0-9]*\)(.*/\1/p' "$root/tmp/calls" | sort -u | comm -23 - "$out/let" >"$out/refused"
[ ! -s "$out/refused" ] || die "the unit's filter refuses: $(tr '\n' ' ' <"$out/refused")"
say "system calls of a run: all of them are let through by the unit's filter"

in_root systemd-analyze verify /usr/lib/systemd/system/smidge.service 2>"$out/verify" || die "systemd-analyze verify: $(cat "$out/verify")"
! grep smidge "$out/verify" || die "systemd-analyze verify warns"
in_root systemd-analyze security --offline=yes --no-pager /usr/lib/systemd/system/smidge.service >"$out/security" 2>&1 || die "$(cat "$out/security")"
score=$(sed -n 's/.*Overall exposure level for smidge.service: \([0-9.]*\) .*/\1/p' "$out/security")
[ -n "$score" ] || die "systemd-analyze security says no score: $(cat "$out/security")"
[ "${score/./}" -le "$worst" ] || die "systemd-analyze security: $score"
say "systemd-analyze verify has nothing to say, and security $score of 10"
# The values alone, as each shell's own machinery asks for them (bash: src/cli/pages.rs).
# shellcheck disable=SC2016 # zsh's own
zsh='compadd() { print -l -- $found; }; compdef() { :; }; source /usr/share/zsh/vendor-completions/_smidge; _smidge_keys'
in_root zsh -fc "$zsh" >"$out/zsh"
in_root fish -c "complete -C 'smidge run --set gossip.mesh_n_l'" >"$out/fish"
for shell in zsh fish; do grep -q '^gossip.mesh_n_low=' "$out/$shell" || die "$shell does not complete keys: $(cat "$out/$shell")"; done

apt remove smidge
gone /usr/bin/smidge
exists /var/lib/smidge/key
exists /etc/smidge/config.toml
apt purge smidge
for path in /var/lib/smidge /etc/smidge /usr/lib/systemd/system/smidge.service; do gone $path; done
[ -z "$(version)" ] || die "it is not purged: $(version)"
say "removed: configuration and key stay; purged: nothing does"
