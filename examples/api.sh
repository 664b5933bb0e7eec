#!/bin/sh
# What a program in any language can do with two nodes, with curl alone: publish, stream, put, get.
#
#   examples/api.sh http://127.0.0.1:4080 http://127.0.0.1:4081
set -eu

one=${1:?usage: api.sh URL_OF_ONE_NODE URL_OF_ANOTHER}
two=${2:?usage: api.sh URL_OF_ONE_NODE URL_OF_ANOTHER}
topic=example-sh
key=example%2Fsh # a key is any bytes; / is written as %2F

command -v curl >/dev/null || { echo "api.sh: curl is missing" >&2; exit 1; }
# --fail-with-body: the exit code tells of a refusal, and its {"error", "hint"} is shown all the same.
ask() { curl --silent --show-error --fail-with-body --max-time 60 "$@"; }

dir=$(mktemp -d)
stream=
trap '[ -z "$stream" ] || kill "$stream" 2>/dev/null || true; rm -rf "$dir"' EXIT

# Follow the topic at one node. Its first line says that nothing is missed from now on.
curl --silent --show-error --no-buffer --max-time 60 "$two/v1/topics/$topic" >"$dir/stream" &
stream=$!
until grep -q '^: messages from now on' "$dir/stream"; do
    kill -0 "$stream" || { cat "$dir/stream" >&2; exit 1; }
    sleep 0.1
done

# Publish at the other, as soon as somebody follows the topic. The receipt tells how many got it.
printf 'receipt: '
ask --data-binary 'hello from the shell' "$one/v1/topics/$topic?wait_peers=1&timeout=30"

# A message is an event of three lines: its name, its JSON, and an empty one.
until grep -q '^data:' "$dir/stream"; do
    kill -0 "$stream" || { cat "$dir/stream" >&2; exit 1; }
    sleep 0.1
done
printf 'message: '
sed -n 's/^data: //p' "$dir/stream"

# A record, byte for byte, kept by both nodes.
printf 'stored: '
ask --upload-file - "$one/v1/dht/$key?quorum=one&ttl=1h" <<EOF
any bytes
EOF
printf 'found: '
ask "$two/v1/dht/$key"

# A refusal says what was wrong, and what helps.
printf 'refused: '
curl --silent --show-error --max-time 60 "$one/v1/peers/nobody"
