#!/usr/bin/env bash
# The stack on a real Swarm of one machine: deploys it from dist/, checks what has to hold (checks.py) and
# prints the figures. Needs root, and dist/<this platform>/smidge (cross/build.sh). Installs and starts an engine
# where there is none. Whatever it made is gone afterwards, also when it fails.
set -euo pipefail
cd "$(dirname "$0")/../.."

stack=smidgetest export_log=$(mktemp -d)
engine='' swarm='' checks='' image=smidge:swarm-test

say() { printf 'swarm: %s\n' "$*"; }
die() { printf 'swarm: FAILED: %s\n' "$*" >&2; exit 1; }

clean() {
    local code=$?
    trap - EXIT INT TERM
    [ -z "$checks" ] || kill "$checks" 2>/dev/null || true
    if [ "$code" != 0 ] && docker stack services "$stack" -q >/dev/null 2>&1; then
        say "what the stack said, its last lines:"
        docker stack ps "$stack" --no-trunc --format '{{.Name}} {{.CurrentState}} {{.Error}}' 2>/dev/null | tail -12 || true
        for service in bootstrap peer sender; do
            docker service logs --tail 15 "${stack}_$service" 2>&1 | tail -30 || true
        done
    fi
    docker stack rm "$stack" >/dev/null 2>&1 || true
    for _ in $(seq 100); do
        [ -n "$(docker ps -aq --filter "label=com.docker.stack.namespace=$stack" 2>/dev/null)" ] || break
        sleep 0.2
    done
    docker secret rm "${stack}_identity" >/dev/null 2>&1 || true
    docker config ls -q --filter "label=com.docker.stack.namespace=$stack" 2>/dev/null | xargs -r docker config rm >/dev/null 2>&1 || true
    [ -z "$swarm" ] || docker swarm leave --force >/dev/null 2>&1 || true
    docker image rm -f "$image" >/dev/null 2>&1 || true
    if [ -n "$engine" ]; then
        kill "$engine" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$engine" 2>/dev/null || break; sleep 0.1; done
        ip link delete docker0 2>/dev/null || true
        ip link delete docker_gwbridge 2>/dev/null || true
    fi
    rm -rf "$export_log"
    exit "$code"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[ "$(id -u)" = 0 ] || die "this must run as root: it starts an engine and enters the tasks' network namespaces"
for tool in nsenter ip iptables; do
    command -v "$tool" >/dev/null || { apt-get update -qq && apt-get install -y -qq util-linux iproute2 iptables; break; }
done

case $(uname -m) in
    x86_64) binary=dist/linux-amd64/smidge target=x86_64 ;;
    aarch64) binary=dist/linux-arm64/smidge target=aarch64 ;;
    *) die "no binary for $(uname -m)" ;;
esac
[ -x "$binary" ] || die "$binary is not there: cross/build.sh $target"

if ! docker version >/dev/null 2>&1; then
    if ! command -v dockerd >/dev/null; then
        say "installing Debian's docker.io"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io >/dev/null
    fi
    # The package may have started it.
    if ! docker version >/dev/null 2>&1; then
        say "starting an engine"
        dockerd >"$export_log/dockerd" 2>&1 &
        engine=$!
        for _ in $(seq 300); do
            docker version >/dev/null 2>&1 && break
            kill -0 "$engine" 2>/dev/null || break
            sleep 0.1
        done
    fi
fi
docker version >/dev/null 2>&1 || die "no engine: $(tail -1 "$export_log/dockerd" 2>/dev/null)"
say "engine $(docker version --format '{{.Server.Version}}'), $(nproc) processors"

if [ "$(docker info -f '{{.Swarm.LocalNodeState}}')" != active ]; then
    docker swarm init --advertise-addr 127.0.0.1 >/dev/null
    swarm=1
fi

SMIDGE_IMAGE=$image ./build.sh
if [ -n "$(docker stack services "$stack" -q 2>/dev/null)" ]; then die "there is a stack $stack already"; fi
deployed=$(date +%s.%N)
SMIDGE_IMAGE=$image ./deploy.sh "$stack"
./inspect.sh "$stack" >"$export_log/inspect"
for section in BOOTSTRAP PEER SENDER; do
    grep -q "^ *$section\$" "$export_log/inspect" || die "inspect.sh shows no section $section"
done
# Not in the foreground: a signal would wait for its end.
python3 tests/swarm/checks.py "$stack" "$binary" "$deployed" &
checks=$!
wait "$checks"
checks=''
say "all of it holds"
