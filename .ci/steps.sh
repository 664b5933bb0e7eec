# The steps of .ci/run, in the order in which it takes them: step_NAME fails when what it checks does not hold.
# Sourced by .ci/run.
# shellcheck shell=bash

# The binary that steps try: as the tests were built, so that no dependency is built for it. Its own code checks
# arithmetic and asserts, and takes twice the processor: where a mesh is loaded, the static one is tried.
smidge=target/debug/smidge
static=dist/linux-amd64/smidge
# Another step may have left one with other features there. What had to be compiled for that is in the step's log.
built() { linted cargo test --locked --no-run 2>&1 | { grep -v '^ *Executable' || true; }; }

# What is built of ours is linted as it is compiled: cargo clippy would check all that it stands on beside building it. All
# steps that test have it, or each would compile our crates anew.
linted() { RUSTC_WORKSPACE_WRAPPER=clippy-driver "$@"; }

# The other runtime and the other resolver.
other=(--no-default-features --features "async-std,async-dns,cli,mdns,mqtt,store")

# cargo for bench/, whose dependencies are shared as far as they are the same.
bench() { CARGO_TARGET_DIR=$PWD/target linted cargo "$1" --locked --manifest-path bench/Cargo.toml "${@:2}"; }

# Says in the table that a part of a step was not done, and why.
left_out() { printf 'LEFT OUT: %s\n' "$1" && printf '%s\n' "$1" >"${logs:?}/${FUNCNAME[1]#step_}.left-out"; }

# cargo test, and that every FILTER behind -- finds tests.
filtered() {
    local out filter
    out=$(mktemp)
    linted cargo test "$@" 2>&1 | tee "$out"
    while [ "$1" != -- ]; do shift; done
    shift
    for filter; do
        grep -q "^test .*$filter.* ok$" "$out" || fail "no test passed whose name has $filter"
    done
    rm "$out"
}

step_format() {
    cargo fmt --all --check
    cargo fmt --manifest-path bench/Cargo.toml --check
    cargo fmt --manifest-path fuzz/Cargo.toml --check
}

step_scripts() {
    find . \( -name target -o -name .git \) -prune -o -name '*.sh' -print0 | xargs -0 shellcheck -x .ci/run
    cross/test.sh
    tests/scripts.sh
}

# cargo's arguments, and that nothing which was compiled for them has a warning.
without_warnings() {
    local out
    out=$(mktemp)
    "$@" 2>&1 | tee "$out"
    # shellcheck disable=SC2016 # cargo's own quotes
    ! grep -E '^warning: `.*` \(.*\) generated' "$out" || fail "$* compiles with warnings"
    rm "$out"
}

# The README's command; neither the compiler nor clippy may warn of anything. A name of the standard library that is newer
# than Cargo.toml's rust-version is a warning, too (incompatible_msrv).
step_test() { without_warnings linted cargo test --locked; }

# With every feature, by the compiler of today.
step_doc() { RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features; }
step_doc-private() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --all-features --document-private-items
}

step_deny() {
    # The other workspaces' locks follow this one's.
    local workspace
    for workspace in bench bench/ours fuzz; do
        cargo metadata --locked --format-version 1 --manifest-path "$workspace/Cargo.toml" >/dev/null
    done
    cargo deny --locked check bans licenses sources
    if timeout 60 cargo deny --locked fetch db; then
        cargo deny --locked --offline check advisories
    else
        left_out "advisories: their database cannot be had here; RELEASING.md"
    fi
}

step_config() {
    local file
    built
    for file in config/*.toml k8s/config.toml packaging/config.toml; do "$smidge" config check "$file"; done
}

# The other runtime and the other resolver in one build, where they can make a difference; `nightly` runs everything
# on each. All of the workspace is selected, as for the other steps: another selection would be other dependencies.
step_alternatives() {
    linted cargo test --locked "${other[@]}" --lib
    filtered --locked "${other[@]}" --test it -- mesh:: messages:: processes:: demo:: doctor::
}

# What the step above runs, built and linted while another waits; and a node and its client without the program around them.
# What each line is compiled with or without is on in one feature set and off in another. The second stands on what the tests
# were built on: async-std, or no hickory, would be all of libp2p and serde once more, for features of log and syn.
step_alternatives-build() {
    renice -n 19 $$ >/dev/null
    without_warnings linted cargo test --locked "${other[@]}" --lib --test it --no-run
    without_warnings linted cargo test --locked --no-default-features --features hickory --lib --examples --no-run
}

# With stock rust-libp2p on tokio, built while another waits.
step_conformance-build() { renice -n 19 $$ >/dev/null && without_warnings bench test --no-run; }
step_conformance() { bench test; }

# The oldest compiler that Cargo.toml promises; and the documentation, which wants all that we stand on checked, as this does.
step_msrv() {
    if ! rustup toolchain install "${oldest:?}" --profile minimal; then
        step_doc
        left_out "Rust $oldest cannot be had here (rustup toolchain install $oldest); clippy looked for newer names alone"
        return
    fi
    nice -n 19 cargo "+$oldest" check --locked
    RUSTDOCFLAGS="-D warnings" nice -n 19 cargo "+$oldest" doc --locked --no-deps
}

# Rendered as a cluster's operator would; no cluster is asked.
step_kubernetes() { built && python3 tests/k8s/check.py "$smidge"; }

step_alerts() { promtool check rules config/alerts.yml; }

# The page, in a browser.
step_page() { built && python3 tests/page/browser.py "$smidge"; }

# The HTTP API against what its document says.
step_api() { built && python3 tests/api/run.py "$smidge"; }

# With js-libp2p and py-libp2p: who is heard again after a restart, and beside a second connection.
step_interop() { built && python3 tests/interop/run.py "$smidge"; }

# With the MQTT clients that people have: Paho's in Python and C, aiomqtt, MQTT.js in Node.js and in Chromium, mosquitto's.
step_mqtt-clients() { built && python3 tests/mqtt/run.py "$smidge"; }

# Each of each crate, as the tests built it.
step_examples() {
    local example
    built
    for example in examples/*.rs crates/*/examples/*.rs; do
        printf '%s\n' "$example"
        timeout 120 "target/debug/examples/$(basename "$example" .rs)"
    done
}

# Whole nodes in simulated time: a hundred seeds of random trouble, and the rows of docs/FAULTS.md that need no kernel. Six nodes, since
# twenty take most of a minute of a processor a seed as the tests are compiled.
step_worlds() {
    renice -n 19 $$ >/dev/null
    linted cargo build --locked --example seeds
    target/debug/examples/seeds --seeds 100 --nodes 6
    target/debug/examples/seeds --twins all --seeds 3
}

step_demo() {
    built
    "$smidge" demo
    "$smidge" demo --nodes 20 --json >/dev/null
    "$smidge" demo --mdns --json >/dev/null
    "$smidge" demo --mqtt
}

step_faults() {
    bench build --bin hostile
    built
    python3 -m unittest discover -s tests/faults
    python3 tests/faults/run.py --binary "$static" --dynamic "$smidge"
}

# Those that want the machine to themselves.
step_faults-large() {
    bench build --bin hostile
    # shellcheck disable=SC2046 # a list of words
    python3 tests/faults/run.py --binary "$static" $(python3 tests/faults/run.py --list --large | cut -d' ' -f1)
}

# Two sites behind NATs: every pair that punches, a few times. Both transports side by side, in networks of their own:
# they wait for events nearly all of the time.
step_nat() {
    local over running=() failed=0
    built
    for over in quic tcp; do
        tests/nat/run.py --over "$over" --tries 3 promises full-full cone-cone full-symmetric symmetric-symmetric &
        running+=($!)
    done
    for over in "${running[@]}"; do wait "$over" || failed=1; done
    return "$failed"
}

step_soak() { python3 tests/faults/soak.py --minutes 3.5 --binary "$static" | grep -v '^{'; }

# The static binary for x86-64, optimized and linked as a whole: what is shipped. soak, faults and swarm try it.
step_static() {
    std_for_static
    CARGO_TERM_QUIET=true cross/build.sh x86_64
    cross/check.sh --demo linux-amd64
}

std_for_static() {
    export SMIDGE_CROSS=debian
    ! has_std_source || SMIDGE_CROSS=source
}

# The Debian package of it: made, installed over an older one, run, purged.
step_packages-deb() { linted packaging/test.sh; }

# Three containers behind one alias, with podman and its name server.
step_podman() { tests/podman/run.sh; }

# A real Swarm, with the static binary.
step_swarm() { tests/swarm/run.sh --native; }

# Every package, built from what would be uploaded, without what only this workspace has ([patch]).
step_packages() {
    ! cargo package --list --allow-dirty --workspace --exclude futures-timer 2>/dev/null | grep -E '^tests/|\.(png|sh)$' ||
        fail "these are packaged"
    cargo publish --locked --workspace --dry-run
}

# The README's command for the demo.
step_release() { cargo run --release --locked -- demo; }

# Every feature at once, every target.
step_clippy() { cargo clippy --locked --all-targets --all-features -- -D warnings; }

step_async-std() { cargo test --locked --features async-std; }
step_async-dns() {
    cargo test --locked --no-default-features --features async-dns,cli,mdns,mqtt,store
    # What was left out is refused by the config.
    filtered --locked --no-default-features --features hickory --lib -- config::
}

step_static-arm() {
    std_for_static
    CARGO_TERM_QUIET=true cross/build.sh aarch64 armv7 arm
    cross/check.sh --demo linux-arm64 linux-arm-v7 linux-arm-v6
}

# The same commit gives the same binary, in another directory, and whatever was built before: here from nothing.
step_reproducible() {
    local elsewhere
    std_for_static
    git diff --quiet HEAD || fail "what is built in the other directory is HEAD: commit your changes first"
    elsewhere=$(mktemp -d)
    # shellcheck disable=SC2064 # it is local
    trap "rm -rf '$elsewhere'" EXIT
    git clone -q . "$elsewhere/smidge"
    CARGO_TERM_QUIET=true "$elsewhere/smidge/cross/build.sh" x86_64
    CARGO_TERM_QUIET=true cross/build.sh x86_64
    cmp "$static" "$elsewhere/smidge/$static"
}

# Every other architecture that can be emulated in the same Swarm.
step_swarm-mixed() { tests/swarm/run.sh linux-arm64 linux-arm-v7; }

step_fuzz() {
    RUSTFLAGS="--cfg fuzzing" cargo clippy --locked --manifest-path fuzz/Cargo.toml -- -D warnings
    fuzz/run.sh 120
}

step_soak-hour() { cargo build --release --locked && python3 tests/faults/soak.py --minutes 60 | grep -v '^{'; }

# Ten minutes of as much as three publishers can send, in containers of the shipped size.
step_memory() { cargo test --release --locked --test it -- --ignored --exact limits::a_container_of_the_shipped_size_lives_whatever_others_send; }

# dnsmasq, unbound, BIND and podman's aardvark-dns as they are.
step_dns() { built && python3 tests/dns/run.py --binary "$smidge"; }

step_nat-50() { built && tests/nat/run.py --tries 50; }
