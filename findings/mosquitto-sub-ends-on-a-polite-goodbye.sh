#!/usr/bin/env bash
# A server that goes down for a moment is kinder to mosquitto_sub (2.0.11, Debian 12) when it says nothing: after a
# plain close the client reconnects and subscribes again, whereas the MQTT 5 DISCONNECT made for the occasion
# (0x8B, "server shutting down") ends it, with exit code 0, so that no supervisor starts it again either.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" && cd "$work"

mkdir debs && (cd debs && apt-get -o APT::Sandbox::User=root download -qq mosquitto-clients=2.0.11-1.2+deb12u2 \
    libmosquitto1=2.0.11-1.2+deb12u2 libcjson1)
for deb in debs/*.deb; do dpkg -x "$deb" root; done

cat >server.py <<'PY'
"""An MQTT 5 server of the fewest words: accepts each client and its subscription, then lets it go."""
import socket, subprocess, sys, os, time

def packet(stream):
    kind = stream.read(1)
    if not kind:
        return None
    length = shift = 0
    while True:
        byte = stream.read(1)[0]
        length |= (byte & 0x7f) << shift
        shift += 7
        if byte < 0x80:
            return kind[0] >> 4, stream.read(length)

def try_(goodbye):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(6)
    env = dict(os.environ, LD_LIBRARY_PATH=f"root/usr/lib/{os.uname().machine}-linux-gnu")
    client = subprocess.Popen(["root/usr/bin/mosquitto_sub", "-V", "5", "-p", str(listener.getsockname()[1]), "-t", "t"],
                              env=env, stderr=subprocess.DEVNULL)
    subscribed = 0
    try:
        while subscribed < 3:
            connection, _ = listener.accept()
            stream = connection.makefile("rb")
            while (got := packet(stream)) is not None:
                kind, body = got
                if kind == 1:
                    connection.sendall(b"\x20\x03\x00\x00\x00")
                elif kind == 8:
                    subscribed += 1
                    connection.sendall(b"\x90\x04" + body[:2] + b"\x00\x00")
                    time.sleep(0.2)
                    connection.sendall(goodbye)
                    break
            stream.close()
            connection.close()
    except TimeoutError:
        pass
    code = client.poll()
    if code is None:
        client.kill()
    return f"subscribed {subscribed} times in all, " + ("still running" if code is None else f"exit code {code}")

print("closed without a word:    ", closed := try_(b""))
print("after DISCONNECT 0x8B:    ", polite := try_(b"\xe0\x01\x8b"))
sys.exit((closed, polite) != ("subscribed 3 times in all, still running", "subscribed 1 times in all, exit code 0"))
PY
echo "mosquitto_sub 2.0.11 (2.0.11-1.2+deb12u2)"
python3 server.py
echo "as found"
