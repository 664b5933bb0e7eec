#!/usr/bin/env bash
# `mosquitto_pub -l -q 1` (2.0.11, Debian 12) given more than 65,535 lines at once ends with exit code 0 and most of
# them unsent. At the end of its input it waits for the acknowledgement of the packet identifier that its last line
# has; identifiers have wrapped by then, and an early line has the same one. Of 80,000 lines about 14,465
# (80,000 - 65,535) arrive. A file piped into a broker, or a load test, is cut off without a word.
set -euo pipefail
work=$(mktemp -d)
broker='' reader=''
trap 'kill $reader $broker 2>/dev/null || true; rm -rf "$work"' EXIT
chmod 755 "$work" && cd "$work"
port=18831

mkdir debs && (cd debs && apt-get -o APT::Sandbox::User=root download -qq mosquitto=2.0.11-1.2+deb12u2 mosquitto-clients=2.0.11-1.2+deb12u2 \
    libmosquitto1=2.0.11-1.2+deb12u2 libcjson1 libdlt2 libwebsockets17 libev4 libuv1 libwrap0 libnsl2 libtirpc3)
for deb in debs/*.deb; do dpkg -x "$deb" root; done
LD_LIBRARY_PATH="$work/root/usr/lib/$(uname -m)-linux-gnu:$work/root/lib/$(uname -m)-linux-gnu"
export LD_LIBRARY_PATH
root/usr/bin/mosquitto_pub --version || true

printf 'listener %d 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 0\nlog_type subscribe\nlog_type error\n' $port >broker.conf
root/usr/sbin/mosquitto -c broker.conf >broker.log 2>&1 &
broker=$!
until root/usr/bin/mosquitto_pub -p $port -t ready -n 2>/dev/null; do sleep 0.1; done

try() { # LINES: how many of them arrive, and how mosquitto_pub ends
    local code=0
    timeout 60 root/usr/bin/mosquitto_sub -p $port -q 1 -t "lines/$1" >got &
    reader=$!
    until grep -q "lines/$1" broker.log; do sleep 0.1; done
    seq "$1" | timeout 45 root/usr/bin/mosquitto_pub -p $port -q 1 -t "lines/$1" -l || code=$?
    sleep 3
    kill "$reader" 2>/dev/null || true
    wait "$reader" 2>/dev/null || true
    reader=
    echo "$(wc -l <got) $code"
}
few=$(try 60000) many=$(try 80000)
echo "60000 lines: arrived and exit code: $few"
echo "80000 lines: arrived and exit code: $many"
[ "$few" = "60000 0" ]
[ "${many#* }" = 0 ] && [ "${many% *}" -lt 80000 ]
echo "as found"
