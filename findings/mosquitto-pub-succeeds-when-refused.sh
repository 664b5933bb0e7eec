#!/usr/bin/env bash
# mosquitto_pub (2.0.11, Debian 12) ends with exit code 0 for a message that the broker refused. With MQTT 5 and QoS 1 the
# broker's PUBACK says "Not authorized" (0x87), the client prints a warning and succeeds; with MQTT 3.1.1, whose PUBACK
# has no reasons, there is no warning either. A script that checks `$?` after each reading loses all of them.
set -euo pipefail
work=$(mktemp -d)
broker=
trap '[ -z "$broker" ] || kill "$broker" 2>/dev/null || true; rm -rf "$work"' EXIT
chmod 755 "$work" && cd "$work"

mkdir -p debs/partial
apt-get -o Debug::NoLocking=1 -o APT::Sandbox::User=root install -qq -y --reinstall --no-install-recommends --download-only \
    -o Dir::Cache::archives="$work/debs" mosquitto=2.0.11-1.2+deb12u2 mosquitto-clients=2.0.11-1.2+deb12u2 \
    libmosquitto1=2.0.11-1.2+deb12u2 >/dev/null
(cd debs && apt-get -o APT::Sandbox::User=root download -qq libcjson1 libwebsockets17 libdlt2 libev4 libuv1 2>/dev/null) || true
for deb in debs/*.deb; do dpkg -x "$deb" root; done
LD_LIBRARY_PATH="$work/root/usr/lib/$(uname -m)-linux-gnu"
export LD_LIBRARY_PATH

printf 'topic read sensors/#\n' >acl
printf 'listener 18831 127.0.0.1\nallow_anonymous true\nacl_file %s/acl\nuser root\n' "$work" >conf
root/usr/sbin/mosquitto -c conf >log 2>&1 &
broker=$!
for _ in $(seq 50); do
    root/usr/bin/mosquitto_pub -p 18831 -t t -n 2>/dev/null && break
    sleep 0.1
done

try() { # VERSION
    local code=0
    root/usr/bin/mosquitto_pub -V "$1" -p 18831 -q 1 -t sensors/door -m open 2>said || code=$?
    printf '%s, QoS 1: exit code %s, said: %s\n' "$1" "$code" "$(tr '\n' ' ' <said)"
}
old=$(try mqttv311) new=$(try mqttv5)
printf '%s\n%s\n' "$old" "$new"
[ "$old" = "mqttv311, QoS 1: exit code 0, said: " ]
[[ "$new" == "mqttv5, QoS 1: exit code 0, said: Warning: "*"Not authorized"* ]]
echo "as found"
