#!/usr/bin/env bash
# Builds the image: from dist/<platform>/smidge (cross/build.sh makes it), or from source.
#
#   ./build.sh                                  # smidge:latest for this machine's architecture
#   SMIDGE_PLATFORM=linux/arm64 ./build.sh      # for a Pi 3, 4, 5 or Zero 2
#   SMIDGE_IMAGE=registry.example/smidge:1 ./build.sh
#   SMIDGE_BUILD=source ./build.sh              # inside the official Rust image: needs BuildKit and the internet
set -euo pipefail
cd "$(dirname "$0")"

die() { printf 'build.sh: %s\n' "$*" >&2; exit 1; }

image=${SMIDGE_IMAGE:-smidge:latest}
docker version >/dev/null 2>&1 || die "no Docker engine answers: start it, or set DOCKER_HOST"

case $(uname -m) in
    x86_64) here=linux/amd64 ;;
    aarch64) here=linux/arm64 ;;
    armv7l) here=linux/arm/v7 ;;
    armv6l) here=linux/arm/v6 ;;
    *) here=linux/$(uname -m) ;;
esac
platform=${SMIDGE_PLATFORM:-$here}
IFS=/ read -r os arch variant <<<"$platform"
dist=dist/$os-$arch${variant:+-$variant}

if [ "${SMIDGE_BUILD:-prebuilt}" = source ]; then
    docker buildx version >/dev/null 2>&1 ||
        die "SMIDGE_BUILD=source needs docker buildx: install it, or take cross/build.sh's binary (without SMIDGE_BUILD)"
    exec docker buildx build --load --platform "$platform" -f Dockerfile.musl --target built -t "$image" .
fi

case ${platform#linux/} in
    amd64) target=x86_64 ;;
    arm64) target=aarch64 ;;
    arm/v7) target=armv7 ;;
    arm/v6) target=arm ;;
    *) die "no target for $platform: linux/amd64, linux/arm64, linux/arm/v7 or linux/arm/v6" ;;
esac
[ -x "$dist/smidge" ] || die "$dist/smidge is not there: run cross/build.sh $target first"

# The plain builder: it is in every engine. Its context is what the image needs, not the whole tree.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
mkdir -p "$context/$dist" "$context/cross"
cp "$dist/smidge" "$context/$dist/"
cp -r cross/rootfs "$context/cross/"
cp Dockerfile.musl "$context/"
arguments=(-q -f "$context/Dockerfile.musl" --target prebuilt -t "$image"
    --build-arg "TARGETOS=$os" --build-arg "TARGETARCH=$arch" --build-arg "TARGETVARIANT=$variant"
    --label "org.opencontainers.image.version=$(sed -n 's/^version = "\(.*\)"/\1/p;T;q' Cargo.toml)"
    --label "org.opencontainers.image.revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)")
if [ "$platform" != "$here" ] && docker buildx version >/dev/null 2>&1; then
    build=(docker buildx build --load --platform "$platform")
else
    build=(env DOCKER_BUILDKIT=0 docker build)
fi
"${build[@]}" "${arguments[@]}" "$context" >"$context/said" 2>&1 ||
    die "the engine does not build it: $(tail -1 "$context/said")"

# What the plain builder makes from nothing is marked as of the machine's own architecture, whatever it is told: the
# image is marked anew.
if [ "$platform" != "$here" ] && [ "${build[0]}" = env ]; then
    mkdir "$context/image"
    unmarked=$(docker image inspect -f '{{.Id}}' "$image")
    docker save "$image" | tar -x -C "$context/image"
    config=$(sed -n 's/.*"Config":"\([^"]*\)".*/\1/p' "$context/image/manifest.json")
    mark="\"architecture\":\"$arch\"${variant:+,\"variant\":\"$variant\"}"
    sed -i "s/\"architecture\":\"[^\"]*\"/$mark/" "$context/image/$config"
    tar -c -C "$context/image" . | docker load -q >"$context/said" 2>&1 ||
        die "the engine does not take the image: $(tail -1 "$context/said")"
    docker image rm "$unmarked" >/dev/null 2>&1 || true
fi
printf 'build.sh: %s for %s, %s bytes\n' "$image" "$platform" "$(docker image inspect -f '{{.Size}}' "$image")"
