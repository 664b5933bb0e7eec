#!/usr/bin/env bash
# podman's name server, aardvark-dns 1.4.0 (Debian 12), answers for its own names over UDP with everything it has: a
# question without EDNS, which promises 512 bytes (RFC 1035, 4.2.1), gets a datagram of 1,632 for 100 containers behind
# one alias, without the TC bit, and there is no TCP to ask over. Who reads into a buffer of the size that was
# advertised, as several resolvers do, gets half a message and calls it malformed.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
chmod 755 "$work" && cd "$work"

mkdir debs && (cd debs && apt-get -o APT::Sandbox::User=root download -qq aardvark-dns=1.4.0-3)
dpkg -x debs/*.deb root

mkdir conf
{
    echo 127.0.0.5
    for n in $(seq 100); do printf '%064x 10.89.0.%d  web\n' "$n" "$((n + 1))"; done
} >conf/mesh
root/usr/lib/podman/aardvark-dns --config "$work/conf" -p 15353 run >log 2>&1 || true
server=$(cat conf/aardvark.pid)

cat >ask.py <<'PY'
import socket, struct, time
question = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + b"\3web\3dns\6podman\0" + struct.pack(">2H", 1, 1)
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(0.5)
for _ in range(20):
    sock.sendto(question, ("127.0.0.5", 15353))
    try:
        answer = sock.recv(65535)
        break
    except (TimeoutError, OSError):
        time.sleep(0.1)
truncated, records = bool(answer[2] & 2), struct.unpack(">H", answer[6:8])[0]
try:
    socket.create_connection(("127.0.0.5", 15353), 1).close()
    tcp = "answers"
except OSError as why:
    tcp = type(why).__name__
print(f"{records} records in {len(answer)} bytes, TC {truncated}, TCP {tcp}")
PY
said=$(python3 ask.py)
echo "aardvark-dns 1.4.0: $said"
[[ "$said" == "100 records in 16"??" bytes, TC False, TCP ConnectionRefusedError" ]]
echo "as found"
