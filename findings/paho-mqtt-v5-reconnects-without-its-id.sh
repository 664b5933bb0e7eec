#!/usr/bin/env bash
# paho-mqtt 2.2.0 (Python), MQTT 5, no client id given: the server assigns one in CONNACK, and says that there is no
# session. When the connection is lost, the client reconnects with Clean Start 0 *and* an empty client id: it asks
# to resume a session and does not say whose, though it was given an identifier. A server that refuses such a CONNECT
# (0x85, as one may for a client id of zero bytes) locks every default paho client out after its first lost
# connection; one that assigns a new id has to answer "no session" to a client that asked for one.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m pip install -q --root-user-action ignore --target py paho-mqtt==2.2.0

cat >try.py <<'PY'
import socket, sys, threading
import paho.mqtt.client as mqtt
from importlib.metadata import version

listener = socket.create_server(("127.0.0.1", 0))
listener.settimeout(20)
seen = []

def serve():
    for _ in range(2):
        connection, _ = listener.accept()
        head = connection.recv(4096)  # CONNECT is short: one read
        flags = head[9]
        at = 12 + 1 + head[12]  # behind the properties, whose length is one byte here
        length = int.from_bytes(head[at:at + 2], "big")
        seen.append((head[8], flags >> 1 & 1, head[at + 2:at + 2 + length].decode()))
        assigned = b"\x12\x00\x05given"
        connection.sendall(bytes([0x20, 3 + len(assigned), 0, 0, len(assigned)]) + assigned)
        connection.close()

server = threading.Thread(target=serve)
server.start()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
client.reconnect_delay_set(1, 1)
client.connect("127.0.0.1", listener.getsockname()[1])
client.loop_start()
server.join(20)
client.loop_stop()
print("paho-mqtt", version("paho-mqtt"))
for protocol, clean, name in seen:
    print(f"CONNECT: MQTT version {protocol}, clean start {clean}, client id {name!r}")
sys.exit(seen != [(5, 1, ""), (5, 0, "")])
PY
PYTHONPATH=py timeout 40 python3 try.py
echo "as found"
