#!/usr/bin/env bash
# Deploys docker-stack.yml as STACK (default p2p), and waits until every task runs.
#   ./deploy.sh [STACK]          SMIDGE_IMAGE, SMIDGE_PEERS as in docker-stack.yml; PATIENCE in seconds
set -euo pipefail
cd "$(dirname "$0")"

die() { printf 'deploy.sh: %s\n' "$*" >&2; exit 1; }

export SMIDGE_STACK=${1:-p2p} SMIDGE_IMAGE=${SMIDGE_IMAGE:-smidge:latest}
[[ $SMIDGE_STACK =~ ^[a-zA-Z0-9][a-zA-Z0-9_-]*$ ]] || die "\"$SMIDGE_STACK\" is no name for a stack"
stack=$SMIDGE_STACK

docker version >/dev/null 2>&1 || die "no Docker engine answers: start it, or set DOCKER_HOST"
case $(docker info -f '{{.Swarm.LocalNodeState}} {{.Swarm.ControlAvailable}}') in
    "active true") ;;
    "active false") die "this node is a worker: run it on a manager of the swarm" ;;
    *) die "this engine is in no swarm: docker swarm init, with --advertise-addr if it has several addresses" ;;
esac
docker image inspect "$SMIDGE_IMAGE" >/dev/null 2>&1 ||
    die "there is no image $SMIDGE_IMAGE here: run ./build.sh, or pull it"

docker secret inspect "${stack}_identity" >/dev/null 2>&1 ||
    od -An -N32 -tx1 /dev/urandom | tr -d ' \n' | docker secret create "${stack}_identity" - >/dev/null

# The peers and bootstrap.
export SMIDGE_WAIT_PEERS=${SMIDGE_WAIT_PEERS:-$((${SMIDGE_PEERS:-3} + 1))}

hash_of() { sha256sum "config/$1.toml" | cut -c1-12; }
SMIDGE_BOOTSTRAP_HASH=$(hash_of bootstrap) SMIDGE_PEER_HASH=$(hash_of peer) SMIDGE_SENDER_HASH=$(hash_of sender)
export SMIDGE_BOOTSTRAP_HASH SMIDGE_PEER_HASH SMIDGE_SENDER_HASH

docker stack deploy --resolve-image "${SMIDGE_RESOLVE:-never}" -c docker-stack.yml "$stack"

# What stands in the way of a task, in the engine's words.
trouble() {
    docker stack ps "$stack" --no-trunc --format '{{.Name}}: {{.Error}}' 2>/dev/null | grep -v ': $' | sort -u | head -3
}

began=$SECONDS
until
    counts=$(docker stack services "$stack" --format '{{.Name}} {{.Replicas}}' | cut -d' ' -f1,2)
    awk '{ split($2, n, "/"); if (n[1] != n[2] || n[2] == 0) bad = 1 } END { exit bad || NR < 3 }' <<<"$counts"
do
    if trouble | grep -q "address already in use\|port already in use\|port is already allocated"; then
        die "a port is taken: $(trouble | grep -m1 'already')"
    fi
    if [ $((SECONDS - began)) -ge "${PATIENCE:-60}" ]; then
        why=$(trouble | tr '\n' ';')
        die "not every task runs after ${PATIENCE:-60} s (${counts//$'\n'/, }): ${why:-docker stack ps $stack tells more}"
    fi
    sleep 0.2
done
printf 'deploy.sh: %s runs: %s\n' "$stack" "${counts//$'\n'/, }"
