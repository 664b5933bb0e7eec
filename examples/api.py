#!/usr/bin/env python3
"""What a program in any language can do with two nodes: publish, stream, put, get.

    examples/api.py http://127.0.0.1:4080 http://127.0.0.1:4081

Python's standard library is all it takes.
"""

import base64
import json
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

TOPIC = "example-py"
KEY = b"example/py \xff"  # any bytes


def ask(url, method="GET", body=None):
    """The body of the answer; a refusal's {"error", "hint"} becomes an exception."""
    request = urllib.request.Request(url, data=body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as refusal:
        record = json.load(refusal)
        raise SystemExit(f"{refusal.code}: {record['error']} ({record['hint']})") from None


def events(stream):
    """The server-sent events of a stream, as (name, record)."""
    name = None
    for line in stream:
        word, _, rest = line.decode().rstrip("\n").partition(": ")
        if word == "event":
            name = rest
        elif word == "data":
            yield name, json.loads(rest)


def payload(record):
    return base64.b64decode(record["data"]) if record["base64"] else record["data"].encode()


def main(one, two):
    topic = urllib.parse.quote(TOPIC, safe="")
    # Nothing is missed from the moment that the answer's head is there.
    stream = urllib.request.urlopen(f"{two}/v1/topics/{topic}", timeout=60)
    said = [b"hello from Python", b"\x00\xff\x00"]
    heard = []

    def listen():
        for name, record in events(stream):
            if name == "lost":
                raise SystemExit(f"{record['lost']} messages were lost: this reader is too slow")
            if name == "message":
                heard.append(payload(record))
                print("message:", record)
            if name == "end" or len(heard) == len(said):
                return

    listener = threading.Thread(target=listen)
    listener.start()
    for message in said:
        receipt = json.loads(ask(f"{one}/v1/topics/{topic}?wait_peers=1&timeout=30", "POST", message))
        print("receipt:", receipt)
    listener.join(60)
    assert heard == said, heard

    key = urllib.parse.quote(KEY, safe="")
    value = bytes(range(256))
    print("stored:", json.loads(ask(f"{one}/v1/dht/{key}?quorum=one&ttl=1h", "PUT", value)))
    assert ask(f"{two}/v1/dht/{key}") == value
    print("found:", len(value), "bytes")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(f"usage: {sys.argv[0]} URL_OF_ONE_NODE URL_OF_ANOTHER")
    main(sys.argv[1], sys.argv[2])
