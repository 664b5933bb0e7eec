#!/usr/bin/env bash
# build.sh, deploy.sh and inspect.sh say what is wrong in one sentence and end with the right code, whatever
# the engine is like. The engine here is a `docker` of our own, first on PATH: nothing is built or deployed.
set -euo pipefail
cd "$(dirname "$0")/.."

bed=$(mktemp -d)
trap 'rm -rf "$bed"' EXIT
mkdir "$bed/bin" "$bed/tree"
# A tree of its own: no dist/ of this one is looked at.
cp build.sh deploy.sh inspect.sh docker-stack.yml Dockerfile.musl Cargo.toml "$bed/tree/"
cp -r config cross "$bed/tree/"

# What the engine is like, in words of $ENGINE: absent, alone, worker, noimage, nobuildx, broken, port, slow, nostack.
cat >"$bed/bin/docker" <<'FAKE'
#!/usr/bin/env bash
is() { [[ " $ENGINE " == *" $1 "* ]]; }
! is absent || { echo "Cannot connect to the Docker daemon at unix:///var/run/docker.sock." >&2; exit 1; }
case "$*" in
    version* | "secret inspect"* | "stack deploy"*) ;;
    "info -f"*) if is alone; then echo "inactive false"; elif is worker; then echo "active false"; else echo "active true"; fi ;;
    "image inspect"*) ! is noimage || { echo "Error: No such image" >&2; exit 1; } ;;
    "buildx version") ! is nobuildx || { echo "docker: 'buildx' is not a docker command." >&2; exit 1; } ;;
    "build "*) ! is broken || { printf 'Step 1\nCOPY failed: no space left on device\n' >&2; exit 1; } ;;
    "stack services"*)
        ! is worker || { echo "Error response from daemon: This node is not a swarm manager." >&2; exit 1; }
        is nostack || printf 'p2p_bootstrap 1/1\np2p_peer %s/3\np2p_sender 1/1\n' "$(is slow || is port && echo 2 || echo 3)" ;;
    "stack ps"*)
        ! is port || echo 'p2p_peer.1: host-mode port already in use on 1 node'
        ! is slow || echo 'p2p_peer.1: No such image: smidge:latest' ;;
    *) ;;
esac
FAKE
chmod +x "$bed/bin/docker"

failed=0
# expect CODE SENTENCE ENGINE COMMAND…: one line of stderr that begins with SENTENCE.
expect() {
    local code=$1 sentence=$2 engine=$3 got=0
    shift 3
    (cd "$bed/tree" && ENGINE=$engine PATH=$bed/bin:$PATH env "$@") >"$bed/out" 2>"$bed/err" || got=$?
    if [ "$got" != "$code" ] || [ "$(wc -l <"$bed/err")" != 1 ] || [[ $(cat "$bed/err") != "$sentence"* ]]; then
        printf 'scripts: FAILED: %s, engine %s: exit code %s (%s wanted), said:\n' "$*" "$engine" "$got" "$code" >&2
        sed 's/^/    /' "$bed/err" >&2
        printf '  wanted: %s…\n' "$sentence" >&2
        failed=1
    fi
}

none="no Docker engine answers: start it, or set DOCKER_HOST"
for script in build deploy inspect; do
    expect 1 "$script.sh: $none" absent "./$script.sh"
done

expect 1 "build.sh: dist/linux-amd64/smidge is not there: run cross/build.sh x86_64 first" "" SMIDGE_PLATFORM=linux/amd64 ./build.sh
expect 1 "build.sh: dist/linux-arm-v7/smidge is not there: run cross/build.sh armv7 first" "" SMIDGE_PLATFORM=linux/arm/v7 ./build.sh
expect 1 "build.sh: no target for linux/s390x: linux/amd64, " "" SMIDGE_PLATFORM=linux/s390x ./build.sh
expect 1 "build.sh: SMIDGE_BUILD=source needs docker buildx: " nobuildx SMIDGE_BUILD=source ./build.sh
mkdir -p "$bed/tree/dist/linux-amd64"
install -m 755 /dev/null "$bed/tree/dist/linux-amd64/smidge"
expect 1 "build.sh: the engine does not build it: COPY failed: no space left on device" broken SMIDGE_PLATFORM=linux/amd64 ./build.sh

expect 1 "deploy.sh: this engine is in no swarm: docker swarm init" alone ./deploy.sh
expect 1 "deploy.sh: this node is a worker: run it on a manager" worker ./deploy.sh
expect 1 "deploy.sh: there is no image smidge:latest here: run ./build.sh" noimage ./deploy.sh
expect 1 "deploy.sh: there is no image other:2 here: run ./build.sh" noimage SMIDGE_IMAGE=other:2 ./deploy.sh
expect 1 'deploy.sh: "a b" is no name for a stack' "" ./deploy.sh "a b"
expect 1 "deploy.sh: a port is taken: p2p_peer.1: host-mode port already in use on 1 node" port ./deploy.sh
expect 1 "deploy.sh: not every task runs after 1 s (p2p_bootstrap 1/1, p2p_peer 2/3, p2p_sender 1/1): p2p_peer.1: No such image" slow PATIENCE=1 ./deploy.sh

expect 1 "inspect.sh: this engine is no manager of a swarm: docker swarm init" worker ./inspect.sh
expect 1 "inspect.sh: there is no stack other: ./deploy.sh other" nostack ./inspect.sh other
expect 2 "usage: ./inspect.sh [-f] [STACK]" "" ./inspect.sh --help

# And when all is well they say so, on stdout.
well() {
    local words=$1 script=$2
    if (cd "$bed/tree" && ENGINE='' PATH=$bed/bin:$PATH "$script") >"$bed/out" 2>"$bed/err" &&
        [ ! -s "$bed/err" ] && grep -qF "$words" "$bed/out"; then
        return
    fi
    printf 'scripts: FAILED: %s, when all is well:\n%s\n' "$script" "$(cat "$bed/out" "$bed/err")" >&2
    failed=1
}
well "deploy.sh: p2p runs: p2p_bootstrap 1/1, p2p_peer 3/3, p2p_sender 1/1" ./deploy.sh
well "no task of p2p_sender runs" ./inspect.sh

[ "$failed" = 0 ]
echo "scripts: every failure is one sentence with its exit code"
