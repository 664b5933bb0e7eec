#!/usr/bin/env bash
# Makes Debian packages from the static binaries in dist/ (cross/build.sh), with dpkg-deb alone: dist/smidge_VERSION_ARCH.deb.
#
#   packaging/deb.sh                  # of every binary in dist/ that Debian has an architecture for
#   packaging/deb.sh amd64 armhf      # of these
#   packaging/deb.sh --pages DIR …    # with manual pages and completions that were made before
#
# The same sources make the same package: SOURCE_DATE_EPOCH is the last commit's time unless it is set.
# SMIDGE_DEB_VERSION is another version than Cargo.toml's, DEBFULLNAME and DEBEMAIL are the maintainer.
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'deb.sh: %s\n' "$1" >&2; [ $# = 1 ] || printf '  %s\n' "${@:2}" >&2; exit 1; }

pages=''
if [ "${1:-}" = --pages ]; then
    pages=${2:?a directory} && shift 2
    [ -e "$pages/smidge.1" ] || die "there is no manual page in $pages"
fi
binary_of() {
    case $1 in
        amd64) echo dist/linux-amd64/smidge ;;
        arm64) echo dist/linux-arm64/smidge ;;
        # ARMv6, which Raspberry Pi OS calls armhf, too: it runs on every ARMv7, and not the other way round.
        armhf) echo dist/linux-arm-v6/smidge ;;
        *) die "\"$1\" is no architecture of these: amd64, arm64, armhf" ;;
    esac
}
if [ $# = 0 ]; then
    for arch in amd64 arm64 armhf; do [ ! -x "$(binary_of "$arch")" ] || set -- "$@" "$arch"; done
    [ $# != 0 ] || die "there is nothing in dist/" "cross/build.sh all"
fi
for arch; do
    binary=$(binary_of "$arch")
    [ -x "$binary" ] || die "$binary is not there" "cross/build.sh all"
done
command -v dpkg-deb >/dev/null || die "dpkg-deb is not here" "apt-get install dpkg"

version=${SMIDGE_DEB_VERSION:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)-1}
maintainer="${DEBFULLNAME:-The smidge contributors} <${DEBEMAIL:-smidge@localhost}>"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
umask 022
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
if [ -z "$pages" ]; then
    pages=$room/pages
    SMIDGE_PAGES=$pages cargo test --locked --lib cli::pages >"$room/made" 2>&1 || die "$(cat "$room/made")"
fi

file() { install -D -m "$1" "$2" "$tree/$3"; }
# A file without a time of its own.
zipped() { gzip -9nc >"$room/zipped" && file 644 "$room/zipped" "$1"; }

for arch; do
    tree=$room/$arch share=usr/share
    file 755 "$(binary_of "$arch")" usr/bin/smidge
    file 644 packaging/config.toml etc/smidge/config.toml
    file 644 packaging/smidge.service usr/lib/systemd/system/smidge.service
    file 644 packaging/smidge.sysusers usr/lib/sysusers.d/smidge.conf
    for page in "$pages"/*.1; do
        name=$(basename "$page")
        zipped "$share/man/man1/$name.gz" <"$page"
    done
    file 644 "$pages/smidge.bash" $share/bash-completion/completions/smidge
    file 644 "$pages/_smidge" $share/zsh/vendor-completions/_smidge
    file 644 "$pages/smidge.fish" $share/fish/vendor_completions.d/smidge.fish
    file 644 config/smidge.toml $share/doc/smidge/examples/smidge.toml
    zipped $share/doc/smidge/changelog.gz <CHANGELOG.md
    printf 'smidge (%s) unstable; urgency=medium\n\n  * What changed is in changelog.gz.\n\n -- %s  %s\n' "$version" \
        "$maintainer" "$(date -uRd "@$SOURCE_DATE_EPOCH")" | zipped $share/doc/smidge/changelog.Debian.gz
    # A paragraph of the license file is a line of dots in this format.
    sed '1,2d; s/^$/./; s/^/ /' LICENSE-MIT >"$room/mit"
    sed -e "/^@MIT@\$/{r $room/mit" -e 'd}' packaging/debian/copyright >"$room/copyright"
    file 644 "$room/copyright" $share/doc/smidge/copyright
    file 644 packaging/debian/lintian-overrides $share/lintian/overrides/smidge

    for script in postinst prerm postrm; do file 755 packaging/debian/$script DEBIAN/$script; done
    echo /etc/smidge/config.toml >"$tree/DEBIAN/conffiles"
    (cd "$tree" && find . -type f -not -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
    cat >"$tree/DEBIAN/control" <<CONTROL
Package: smidge
Version: $version
Architecture: $arch
Maintainer: $maintainer
Section: net
Priority: optional
Installed-Size: $(du -k -s --apparent-size --exclude=DEBIAN "$tree" | cut -f1)
Depends: systemd | systemd-standalone-sysusers | systemd-sysusers
Suggests: bash-completion
Description: brokerless publish/subscribe and key-value mesh
 Turns the machines behind a DNS name, or of a local network, into one mesh
 without a broker: nodes find each other, stay connected while others come
 and go, and speak standard libp2p (Kademlia, GossipSub, QUIC).
 .
 Programs use it through HTTP on the local machine, people through the
 command line.
CONTROL
    find "$tree" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    package=dist/smidge_${version}_$arch.deb
    dpkg-deb --root-owner-group -Zxz --build "$tree" "$package" >/dev/null
    printf 'deb.sh: %s, %s bytes, sha256 %s\n' "$package" "$(stat -c %s "$package")" "$(sha256sum <"$package" | cut -c1-64)"
done
