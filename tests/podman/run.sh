#!/usr/bin/env bash
# podman and its own name server: the image is built by it, three containers behind one alias become a mesh, a fourth is
# found, one that is gone is missed, and a message reaches all of the others; a container says itself that it is ready, as
# podman/smidge.container asks; then packaging/compose.yml as it stands. Needs root and dist/linux-amd64/smidge (or this
# machine's). Whatever it made is gone afterwards, also when it fails.
#   tests/podman/run.sh
set -euo pipefail
cd "$(dirname "$0")/../.."

say() { printf 'podman: %s\n' "$*"; }
die() { printf 'podman: FAILED: %s\n' "$*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || die "this must run as root"
for tool in podman podman-compose python3 /usr/lib/podman/netavark /usr/lib/podman/aardvark-dns iptables; do
    command -v "$tool" >/dev/null || die "$tool is not here: apt-get install podman netavark aardvark-dns iptables; pip install podman-compose"
done
case $(uname -m) in
    x86_64) arch=amd64 ;;
    aarch64) arch=arm64 ;;
    *) die "no binary for $(uname -m)" ;;
esac
[ -x "dist/linux-$arch/smidge" ] || die "dist/linux-$arch/smidge is not there: cross/build.sh"

name=smidge-test-$$ image=localhost/smidge:podman-test room=$(mktemp -d)
mkdir "$room/said"
composed() { SMIDGE_IMAGE=$image podman-compose -p "$name" -f packaging/compose.yml "$@"; }
clean() {
    local code=$?
    trap - EXIT INT TERM
    if [ "$code" != 0 ]; then
        for n in 1 2 3 4 5; do podman logs --tail 15 "$name-$n" 2>&1 | sed "s/^/$n: /" || true; done
    fi
    podman rm -f -v -t 0 "$name-1" "$name-2" "$name-3" "$name-4" "$name-5" >/dev/null 2>&1 || true
    podman rm -f -v -t 0 "${name}_peer_1" "${name}_peer_2" "${name}_peer_3" >/dev/null 2>&1 || true
    composed down -v >/dev/null 2>&1 || true
    for network in "$name" "${name}_mesh"; do podman network rm "$network" >/dev/null 2>&1 || true; done
    podman rmi -f "$image" >/dev/null 2>&1 || true
    rm -rf "$room"
    exit "$code"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What Dockerfile.musl's target `prebuilt` takes, and nothing of target/.
mkdir -p "$room/context/dist/linux-$arch"
cp "dist/linux-$arch/smidge" "$room/context/dist/linux-$arch/"
cp -r --parents cross/rootfs Dockerfile.musl "$room/context/"
podman build -q --format docker --target prebuilt -t "$image" -f "$room/context/Dockerfile.musl" \
    --build-arg TARGETOS=linux --build-arg "TARGETARCH=$arch" "$room/context" >/dev/null
podman network create "$name" >/dev/null

# A runtime that wants other cgroups than this machine has is not the only one, nor may every machine raise limits.
runtime=''
for candidate in crun runc; do
    command -v "$candidate" >/dev/null || continue
    printf '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n[engine]\nruntime = "%s"\n' "$candidate" >"$room/conf"
    export CONTAINERS_CONF=$room/conf
    if podman run --rm --no-healthcheck "$image" --version >"$room/said/$candidate" 2>&1; then
        runtime=$candidate
        break
    fi
done
[ -n "$runtime" ] || die "no container starts: $(cat "$room"/said/*)"
say "$(podman --version), $runtime, $(grep '^smidge' "$room/said/$runtime")"
# As packaging/podman/smidge.container asks, but for the host's network, and without health checks, which are timers of systemd.
start() {
    podman run -d --no-healthcheck --name "$name-$1" --network "$name" --network-alias mesh \
        --read-only --cap-drop all --security-opt no-new-privileges "$image" run --dial mesh --topic home >/dev/null
}
in_node() { podman exec "$name-$1" /smidge "${@:2}"; }
# Until every one of these nodes has so many peers in the mesh.
meshed() {
    local n
    for n in "${@:2}"; do
        for _ in $(seq 300); do in_node "$n" ready --topic home --min-mesh "$1" >/dev/null 2>&1 && continue 2; sleep 0.1; done
        die "node $n is not ready: $(in_node "$n" names 2>&1)"
    done
}
SECONDS=0
for n in 1 2 3; do start $n; done
meshed 2 1 2 3
say "three containers behind one alias are a mesh after $SECONDS s, with the start of each"
start 4
meshed 3 1 2 3 4
say "a fourth is found by all"
podman stop -t 10 "$name-2" >/dev/null
code=$(podman inspect -f '{{.State.ExitCode}}' "$name-2")
[ "$code" = 0 ] || die "podman stop ends a node with $code, not 0"
for n in 1 3 4; do in_node $n sub -t home --count 1 --timeout 30 >"$room/heard-$n" & done
for n in 1 3 4; do
    for _ in $(seq 300); do [ "$(in_node $n status --json | grep -c '"peers":2,')" = 0 ] || continue 2; sleep 0.1; done
    die "node $n has not noticed that one has gone: $(in_node $n peers)"
done
for _ in $(seq 300); do
    in_node 3 pub -t home -m hello >/dev/null
    if [ -s "$room/heard-1" ] && [ -s "$room/heard-3" ] && [ -s "$room/heard-4" ]; then break; fi
    sleep 0.1
done
wait
for n in 1 3 4; do [ "$(cat "$room/heard-$n")" = hello ] || die "node $n heard: $(cat "$room/heard-$n")"; done
say "one ended with 0 and is missed by the others; what one says, all hear; in $SECONDS s"

# The service manager's end of Notify=true.
python3 - "$room/notify" >"$room/heard" <<'MANAGER' &
import socket, sys
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind(sys.argv[1])
manager.settimeout(60)
while b"READY=1" not in manager.recv(4096).split(b"\n"):
    pass
print("ready")
MANAGER
manager=$!
for _ in $(seq 100); do [ ! -S "$room/notify" ] || break; sleep 0.1; done
NOTIFY_SOCKET=$room/notify podman run -d --no-healthcheck --sdnotify=container --name "$name-5" "$image" run >/dev/null
wait "$manager" || die "a container of --sdnotify=container does not say that it is ready"
say "a container says itself that it is ready"

composed up -d --scale peer=3 >"$room/said/compose" 2>&1 || die "compose: $(cat "$room/said/compose")"
for n in 1 2 3; do
    for _ in $(seq 300); do
        podman exec "${name}_peer_$n" /smidge ready --topic home --min-mesh 2 >/dev/null 2>&1 && continue 2
        sleep 0.1
    done
    die "packaging/compose.yml: $(podman logs "${name}_peer_$n" 2>&1 | tail -5) $(cat "$room/said/compose")"
done
say "packaging/compose.yml: three replicas are a mesh"
