#!/usr/bin/env bash
# The stack on a real Swarm of one machine: deploys it from dist/, checks what has to hold (checks.py) and
# prints the figures. Needs root, dist/<this platform>/smidge, and a binary of another architecture to be emulated
# (cross/build.sh), unless it is told to do without. Installs and starts what is not there: an engine, qemu.
# Whatever it made is gone afterwards, also when it fails.
#
#   tests/swarm/run.sh [PLATFORM…]      # linux-arm64, linux-arm-v7: those to emulate; default: those in dist/
#   tests/swarm/run.sh --native         # none
#   SMIDGE_FROM=BINARY tests/swarm/run.sh …   # the stack begins with another build, and is updated to dist/'s
set -euo pipefail
cd "$(dirname "$0")/../.."

stack=smidgetest said=$(mktemp -d)
engine='' swarm='' checks='' image=smidge:swarm-test registered=() images=()

say() { printf 'swarm: %s\n' "$*"; }
die() { printf 'swarm: FAILED: %s\n' "$*" >&2; exit 1; }
debian() { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null; }
of_stack() { docker "$1" ls "${@:2}" --filter "label=com.docker.stack.namespace=$stack" 2>/dev/null || true; }

clean() {
    local code=$?
    trap - EXIT INT TERM
    # With all that it started inside the tasks.
    [ -z "$checks" ] || kill -- "-$checks" 2>/dev/null || true
    if [ "$code" != 0 ] && docker stack services "$stack" -q >/dev/null 2>&1; then
        say "what the stack said, its last lines:"
        docker stack ps "$stack" --no-trunc --format '{{.Name}} {{.CurrentState}} {{.Error}}' 2>/dev/null | tail -12 || true
        for service in $(of_stack service --format '{{.Name}}'); do
            docker service logs --tail 15 "$service" 2>&1 | tail -30 || true
        done
    fi
    docker rm -fv "$stack-image" >/dev/null 2>&1 || true
    docker volume rm "$stack-state" >/dev/null 2>&1 || true
    docker stack rm "$stack" >/dev/null 2>&1 || true
    for _ in $(seq 150); do
        [ -n "$(of_stack container -aq)$(of_stack network -q)" ] || break
        sleep 0.2
    done
    docker secret rm "${stack}_identity" >/dev/null 2>&1 || true
    of_stack config -q | xargs -r docker config rm >/dev/null 2>&1 || true
    [ -z "$swarm" ] || docker swarm leave --force >/dev/null 2>&1 || true
    docker image rm -f "$image" ${images[@]+"${images[@]}"} >/dev/null 2>&1 || true
    if [ -n "$engine" ]; then
        kill "$engine" 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$engine" 2>/dev/null || break; sleep 0.1; done
        ip link delete docker0 2>/dev/null || true
        ip link delete docker_gwbridge 2>/dev/null || true
    fi
    for name in ${registered[@]+"${registered[@]}"}; do echo -1 >"/proc/sys/fs/binfmt_misc/$name" || true; done
    rm -rf "$said"
    exit "$code"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

[ "$(id -u)" = 0 ] || die "this must run as root: it starts an engine and enters the tasks' network namespaces"
for tool in nsenter ip iptables curl python3; do
    command -v "$tool" >/dev/null || { debian util-linux iproute2 iptables curl python3; break; }
done

case $(uname -m) in
    x86_64) native=linux-amd64 target=x86_64 ;;
    aarch64) native=linux-arm64 target=aarch64 ;;
    *) die "no binary for $(uname -m)" ;;
esac
binary=dist/$native/smidge
[ -x "$binary" ] || die "$binary is not there: cross/build.sh $target"
if [ "${1:-}" = --native ]; then
    shift
elif [ $# = 0 ]; then
    for platform in linux-arm64 linux-arm-v7; do
        if [ "$platform" != "$native" ] && [ -x "dist/$platform/smidge" ]; then set -- "$@" "$platform"; fi
    done
    [ $# != 0 ] || die "there is no binary of another architecture in dist/: cross/build.sh aarch64 armv7"
fi
for platform in "$@"; do
    case $platform in
        linux-arm64) target=aarch64 ;;
        linux-arm-v7) target=armv7 ;;
        *) die "\"$platform\" cannot be emulated here: linux-arm64 or linux-arm-v7" ;;
    esac
    [ -x "dist/$platform/smidge" ] || die "dist/$platform/smidge is not there: cross/build.sh $target"
done

# Lets binaries of another architecture start like the machine's own, unless they do already.
emulate() {
    local name=$1 rules=/usr/lib/binfmt.d/$1.conf
    [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
    [ ! -e "/proc/sys/fs/binfmt_misc/$name" ] || return 0
    [ -e "$rules" ] || debian qemu-user-static
    # The package may have done it.
    [ ! -e "/proc/sys/fs/binfmt_misc/$name" ] || return 0
    [ -e "$rules" ] || die "there is no $rules: apt-get install qemu-user-static"
    head -1 "$rules" >/proc/sys/fs/binfmt_misc/register
    registered+=("$name")
}

if ! docker version >/dev/null 2>&1; then
    if ! command -v dockerd >/dev/null; then
        say "installing Debian's docker.io"
        debian docker.io
    fi
    # The package may have started it.
    if ! docker version >/dev/null 2>&1; then
        say "starting an engine"
        dockerd >"$said/dockerd" 2>&1 &
        engine=$!
        for _ in $(seq 300); do
            docker version >/dev/null 2>&1 && break
            kill -0 "$engine" 2>/dev/null || break
            sleep 0.1
        done
    fi
fi
docker version >/dev/null 2>&1 || die "no engine: $(tail -n 1 "$said/dockerd" 2>/dev/null)"
say "engine $(docker version --format '{{.Server.Version}}'), $(nproc) processors"

case $(docker info -f '{{.Swarm.LocalNodeState}}') in
    active) [ -z "$(docker stack services "$stack" -q 2>/dev/null)" ] || { stack=none-$$; die "there is a stack smidgetest already"; } ;;
    *) docker swarm init --advertise-addr 127.0.0.1 >/dev/null && swarm=1 ;;
esac

SMIDGE_IMAGE=$image ./build.sh
for platform in "$@"; do
    case $platform in
        linux-arm64) emulate qemu-aarch64 ;;
        linux-arm-v7) emulate qemu-arm ;;
    esac
    slashed=${platform//-/\/}
    images+=("smidge:$stack-$platform")
    SMIDGE_IMAGE=smidge:$stack-$platform SMIDGE_PLATFORM=$slashed ./build.sh
    built=$(docker image inspect -f '{{.Os}}/{{.Architecture}}' "smidge:$stack-$platform")
    [ "$built" = "$(cut -d/ -f1,2 <<<"$slashed")" ] || die "the image for $platform says that it is for $built"
done

# The image with nothing but its state to write to: in memory, or on a volume, where the key stays.
docker run -d --name "$stack-image" --network none --read-only \
    --tmpfs /var/lib/smidge:uid=10001,gid=10001,mode=0700 "$image" >/dev/null
for _ in $(seq 100); do docker exec "$stack-image" /smidge health >/dev/null 2>&1 && break; sleep 0.1; done
docker exec "$stack-image" /smidge health >/dev/null || die "read-only, state in memory: $(docker logs "$stack-image" 2>&1 | tail -n 3)"
docker stop "$stack-image" >/dev/null
code=$(docker inspect -f '{{.State.ExitCode}}' "$stack-image")
[ "$code" = 0 ] || die "docker stop ends the node with $code, not 0"
on_volume=(docker run --rm --network none --read-only -v "$stack-state:/var/lib/smidge" "$image" key)
made=$("${on_volume[@]}" generate) shown=$("${on_volume[@]}" show)
[ "$made" = "$shown" ] || die "a key on a volume is not kept: $made, then $shown"
say "the image runs read-only, its state in memory or on a volume, and ends with 0 on docker stop"

# Neither of them says a word about what it does not like. (Old clients have no `docker stack config`.)
if docker stack config --help 2>&1 | grep -q "^Usage:.*stack config"; then
    docker stack config -c docker-stack.yml >/dev/null 2>"$said/config" || die "docker stack config: $(cat "$said/config")"
    [ ! -s "$said/config" ] || die "docker stack config warns: $(cat "$said/config")"
    docker stack config -c docker-stack.yml -c docker-stack.relay.yml >/dev/null 2>"$said/config" ||
        die "docker stack config, with the relay: $(cat "$said/config")"
    [ ! -s "$said/config" ] || die "docker stack config, with the relay, warns: $(cat "$said/config")"
    say "docker stack config takes docker-stack.yml, and docker-stack.relay.yml over it, without a warning"
fi
first=$image
if [ -n "${SMIDGE_FROM:-}" ]; then
    first=smidge:$stack-from
    images+=("$first")
    cp "$SMIDGE_FROM" "$said/smidge"
    printf 'FROM %s\nCOPY smidge /smidge\n' "$image" >"$said/Dockerfile"
    DOCKER_BUILDKIT=0 docker build -q -t "$first" "$said" >/dev/null
    say "begins with $("$SMIDGE_FROM" --version), $(stat -c %s "$SMIDGE_FROM") bytes; the rolling update goes to $(stat -c %s "$binary") bytes"
    export SMIDGE_UPDATE_TO=$image
fi
deployed=$(date +%s.%N)
SMIDGE_IMAGE=$first SMIDGE_FORGET=10s ./deploy.sh "$stack" 2>"$said/deploy" || die "$(cat "$said/deploy")"
# What newer clients say about themselves is no warning.
grep -v "^Since --detach\|^In a future release, --detach" "$said/deploy" >"$said/warnings" || true
[ ! -s "$said/warnings" ] || die "deploy.sh warns: $(cat "$said/warnings")"
./inspect.sh "$stack" >"$said/inspect"
for section in BOOTSTRAP PEER SENDER; do
    grep -q "^ *$section\$" "$said/inspect" || die "inspect.sh shows no section $section"
done
# Not in the foreground: a signal would wait for its end. A group of its own: its children end with it.
PYTHONDONTWRITEBYTECODE=1 setsid python3 tests/swarm/checks.py "$stack" "$binary" "$deployed" "$@" &
checks=$!
wait "$checks"
say "all of it holds, in $SECONDS s"
