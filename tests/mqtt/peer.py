"""An MQTT client of the tests': peer.py LIBRARY URL NAME [CAFILE], with LIBRARY paho or aiomqtt.

Subscribes to all/# at QoS 2 and prints `ready`, then `heard TOPIC PAYLOAD` for each message. Each line of its input is
`TOPIC QOS RETAIN PAYLOAD`, which it publishes; it prints `said PAYLOAD` when that is done. Its will is all/NAME/will.
"""

import asyncio
import sys
import threading
import urllib.parse

import aiomqtt
import paho.mqtt.client as paho

library, url, name = sys.argv[1:4]
cafile = sys.argv[4] if len(sys.argv) > 4 else None
place = urllib.parse.urlparse(url)
over = "websockets" if place.scheme in ("ws", "wss") else "tcp"
will = f"all/{name}/will"


def say(*words):
    # One write: Paho calls from a thread of its own.
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def with_paho():
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=name, transport=over, protocol=paho.MQTTv311)
    if over == "websockets":
        client.ws_set_options(path=place.path)
    if cafile:
        client.tls_set(cafile)
    client.will_set(will, "lost", qos=1)
    client.on_connect = lambda client, *_: client.subscribe("all/#", qos=2)
    client.on_subscribe = lambda *_: say("ready")
    client.on_message = lambda client, data, message: say("heard", message.topic, message.payload.decode())
    client.connect(place.hostname, place.port)
    client.loop_start()
    for line in sys.stdin:
        topic, qos, retain, payload = line.rstrip("\n").split(" ", 3)
        client.publish(topic, payload, int(qos), retain == "1").wait_for_publish(60)
        say("said", payload)


async def with_aiomqtt():
    options = {"transport": over, "identifier": name, "protocol": aiomqtt.ProtocolVersion.V5,
               "will": aiomqtt.Will(will, "lost", qos=1)}
    if over == "websockets":
        options["websocket_path"] = place.path
    if cafile:
        options["tls_params"] = aiomqtt.TLSParameters(ca_certs=cafile)
    async with aiomqtt.Client(place.hostname, place.port, **options) as client:
        await client.subscribe("all/#", qos=2)
        say("ready")
        loop, lines = asyncio.get_running_loop(), asyncio.Queue()

        def read():
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)

        threading.Thread(target=read, daemon=True).start()

        async def publish():
            while True:
                topic, qos, retain, payload = (await lines.get()).rstrip("\n").split(" ", 3)
                await client.publish(topic, payload, int(qos), retain == "1")
                say("said", payload)

        task = asyncio.create_task(publish())
        async for message in client.messages:
            say("heard", message.topic, message.payload.decode())
        await task


with_paho() if library == "paho" else asyncio.run(with_aiomqtt())
