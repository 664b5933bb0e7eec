"""A name server that is not to be trusted, for trouble.py.

    nameserver.py OWN ENGINE late SECONDS     passes on what the engine says, that much later
    nameserver.py OWN ENGINE wrong ADDRESS    says that every name is there, and nowhere else
"""

import socket
import struct
import sys
import threading

own, engine, how, value = sys.argv[1:]
asked = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asked.bind((own, 53))


def wrong(question):
    """One A record for a question of type A, none for others."""
    end = 12
    while question[end]:
        end += question[end] + 1
    kind, = struct.unpack_from("!H", question, end + 1)
    answers = 1 if kind == 1 else 0
    # A response, recursion available; the question as it came, without what follows it.
    head = question[:2] + struct.pack("!5H", 0x8180, 1, answers, 0, 0)
    record = struct.pack("!HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(value)
    return head + question[12:end + 5] + record * answers


def late(question):
    """What the engine says; nothing, if it says nothing."""
    upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    upstream.bind((own, 0))
    upstream.settimeout(5)
    upstream.sendto(question, (engine, 53))
    return upstream.recv(65535)


def answer(question, client):
    try:
        reply = wrong(question) if how == "wrong" else late(question)
        asked.sendto(reply, client)
    except (OSError, IndexError, struct.error):
        pass  # No answer is an answer, too.


print("ready", flush=True)
while True:
    question, client = asked.recvfrom(65535)
    if how == "wrong":
        answer(question, client)
    else:
        threading.Timer(float(value), answer, (question, client)).start()
