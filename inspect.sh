#!/usr/bin/env bash
# The logs of a stack's running tasks, a section for each service; -f goes on with what comes.
#   ./inspect.sh [-f] [STACK]
set -euo pipefail

die() { printf 'inspect.sh: %s\n' "$*" >&2; exit 1; }

follow='' stack=p2p
for word in "$@"; do
    case $word in
        -f) follow=1 ;;
        -*) printf 'usage: ./inspect.sh [-f] [STACK]\n' >&2; exit 2 ;;
        *) stack=$word ;;
    esac
done

docker version >/dev/null 2>&1 || die "no Docker engine answers: start it, or set DOCKER_HOST"
docker stack services "$stack" -q >/dev/null 2>&1 || die "this engine is no manager of a swarm: docker swarm init"
[ -n "$(docker stack services "$stack" -q 2>/dev/null)" ] || die "there is no stack $stack: ./deploy.sh $stack"

for service in bootstrap peer sender; do
    printf '=================================\n           %s\n=================================\n' "${service^^}"
    tasks=$(docker service ps "${stack}_$service" -q --no-trunc --filter desired-state=running 2>/dev/null || true)
    [ -n "$tasks" ] || printf 'no task of %s_%s runs\n' "$stack" "$service"
    for task in $tasks; do docker service logs "$task" 2>&1 || true; done
    printf '\n'
done

if [ -n "$follow" ]; then
    trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
    for service in bootstrap peer sender; do docker service logs -f --tail 0 "${stack}_$service" 2>&1 & done
    wait
fi
