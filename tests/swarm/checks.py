"""What has to hold in a Swarm, with its figures; tests/swarm/run.sh deploys the stack and calls this.

    checks.py STACK BINARY SECONDS_SINCE_EPOCH_OF_DEPLOY [PLATFORM…]

BINARY is smidge for this machine; PLATFORM is another one, for which there is an image smidge:STACK-PLATFORM.
"""

import json
import os
import re
import subprocess
import sys
import threading
import time
from datetime import datetime

import mixed
import trouble
from stack import BINARY, FIVE, STACK, command, every, fail, say, tasks, until, whole

CONNECTED_WITHIN = 15.0
LATE = 1.0
RATE = 20
# Bytes that a container may have, at rest and after all that is done to it here.
MEMORY = 10_000_000


def delivery(deployed):
    def heard():
        logs = {}
        for task in tasks():
            run = subprocess.run(["docker", "logs", task.container], capture_output=True, text=True, check=True)
            logs[task] = run.stderr + run.stdout
        lines = {t: re.findall(r"^(\S+) .*message \S+ from \S+ on some_topic, 4 bytes", log, re.M) for t, log in logs.items()}
        hearers = [t for t in logs if t.service != "sender"]
        return lines if len(hearers) == 4 and all(lines[t] for t in hearers) else None

    lines, _ = until("the sender's message is in the logs of bootstrap and of every peer", heard, 60)
    last = max(stamp for stamps in lines.values() for stamp in stamps)
    seconds = datetime.fromisoformat(last.replace("Z", "+00:00")).timestamp() - deployed
    twice = [t.name for t, stamps in lines.items() if len(stamps) > 1]
    if twice:
        fail(f"the message came more than once at {', '.join(twice)}")
    say(f"(1) 5 tasks run; the sender's message is at bootstrap and all 3 peers, once each, {seconds:.1f} s after `stack deploy`")


def capabilities():
    """What the kernel lets the tasks do, and who may read the secret of their keys."""
    for task in tasks():
        with open(f"/proc/{task.pid}/status") as status:
            sets = re.findall(r"^(Cap(?:Inh|Prm|Eff|Bnd|Amb)):\s*([0-9a-f]+)$", status.read(), re.M)
        kept = {name: value for name, value in sets if int(value, 16)}
        if len(sets) != 5 or kept:
            fail(f"{task.name} keeps capabilities: {kept}")
        mode = command("stat", "-L", "-c", "%a %u", f"/proc/{task.pid}/root/run/secrets/identity").strip()
        if mode != "400 10001":
            fail(f"{task.name}: mode and owner of the secret are {mode}")
    say("    no task keeps a capability, and the secret is readable for its user only")


def scale():
    began = time.monotonic()
    command("docker", "service", "scale", "--detach", f"{STACK}_peer=20")
    until("20 peers run", lambda: len(tasks("peer")) == 20, 120)
    started = time.monotonic()
    _, seconds = until("20 peers, bootstrap and the sender are connected", whole(FIVE | {"peer": 20}), 60)
    say(f"(2) peer=20: every container started after {started - began:.1f} s; all 22 nodes connected {seconds:.1f} s "
        f"after the last one (with its first health check, 5 s, in between)")
    if seconds > CONNECTED_WITHIN:
        fail(f"{seconds:.1f} s is more than {CONNECTED_WITHIN} s")
    memory("with 22 nodes")
    began = time.monotonic()
    command("docker", "service", "scale", "--detach", f"{STACK}_peer=3")
    until("3 peers run", lambda: len(tasks("peer")) == 3, 120)
    gone = time.monotonic()
    _, seconds = until("the departed 17 are disconnected", whole(FIVE), 60)

    def records():
        """Names hold the three peers, and nothing that is not connected."""
        for task in tasks():
            for name in task.ask("names")["names"]:
                held = name["records"]
                if name["name"] == "peer:4001" and len(held) != 3 or any(r["state"] not in ("connected", "own") for r in held):
                    records.why = f"{task.short}: {name['name']} {[(r['address'], r['state']) for r in held]}"
                    return False
        return True

    def tables():
        sizes = {task.short: task.ask("status")["table"] for task in tasks()}
        tables.why = str(sizes)
        return set(sizes.values()) == {len(sizes) - 1}

    in_names = seconds + until("no name has a departed record", records, 60)[1]
    in_tables = seconds + until("no routing table has a departed peer", tables, 60)[1]
    say(f"    peer=3: 17 stopped after {gone - began:.1f} s; then, of the departed: no connection after {seconds:.1f} s, "
        f"no record after {in_names:.1f} s, no entry of the routing tables after {in_tables:.1f} s")


def kill():
    old = tasks("bootstrap")[0]
    before = old.identify()
    began = time.monotonic()
    command("docker", "kill", old.container)
    new, replaced = until("bootstrap has a new task", lambda: next(t for t in tasks("bootstrap") if t is not old), 60)
    same = until("the new bootstrap answers", new.identify, 60)[0] == before

    others = [task for task in tasks() if task.service != "bootstrap"]

    def connected(task):
        """To the new one only: what led to the old one is closed."""
        peer = task.peers().get(new.peer)
        links = peer["connections"] if peer else []
        return bool(links) and all(new.ip in c["address"] and c["age_s"] <= time.monotonic() - began for c in links)

    def in_table(task):
        found = task.ask("dht", "find-peer", new.peer)["addresses"]
        in_table.why = found
        return len(found) == 1 and new.ip in found[0]

    until("the new bootstrap is connected to every node", every(connected, others), 60)
    after = time.monotonic() - began
    until("the new bootstrap is in every node's table", every(in_table, others), 60)
    say(f"(3) docker kill bootstrap: a new task after {replaced:.1f} s at {new.ip} (was {old.ip}), "
        f"{'the same' if same else 'ANOTHER'} peer id; connected to everybody after {after:.1f} s, "
        f"in everybody's table, at its new address only, after {time.monotonic() - began:.1f} s")
    if not same:
        fail("the derived key changed")
    until("all is whole again", whole(FIVE), 60)


def shown():
    """The image as the README and the stack want it, seen from a task."""
    one, other = tasks("peer")[:2]
    image = json.loads(command("docker", "image", "inspect", json.loads(command("docker", "inspect", one.container))[0]["Image"]))[0]
    config = image["Config"]
    wanted = {
        "User": "10001:10001",
        "StopSignal": "SIGTERM",
        "Entrypoint": ["/smidge"],
        "Cmd": ["run"],
        "ExposedPorts": {"4001/udp": {}},
        "Volumes": {"/var/lib/smidge": {}},
    }
    for key, value in wanted.items():
        if config.get(key) != value:
            fail(f"the image's {key} is {config.get(key)}, not {value}")
    if config["Healthcheck"]["Test"] != ["CMD", "/smidge", "health"]:
        fail(f"the image's health check is {config['Healthcheck']}")
    labels = {f"org.opencontainers.image.{key}" for key in ("title", "description", "licenses", "version", "revision")}
    if not labels <= {key for key, value in config["Labels"].items() if value}:
        fail(f"the image has no label {labels - set(config['Labels'])}")
    # Without a shell, as the README shows it: whose key is it, and a ping there.
    peer = command("docker", "exec", other.container, "/smidge", "key", "show").strip()
    if peer != other.identify():
        fail(f"`smidge key show` in {other.short} says {peer}, and the node {other.peer}")
    pinged = command("docker", "exec", one.container, "/smidge", "ping", peer, "-c", "3", "-i", "100ms")
    say(f"    image: {image['Size']} bytes, {image['Os']}/{image['Architecture']}, user {config['User']}, health checked; "
        f"{one.short} pings {other.short}: {pinged.splitlines()[-1]}")


class Hearer(threading.Thread):
    """A subscriber at a task."""

    def __init__(self, task):
        super().__init__(daemon=True)
        self.task, self.got, self.stop, self.child = task, [], False, None
        self.start()

    def run(self):
        while not self.stop:
            self.child = subprocess.Popen(self.task.inside(BINARY, "sub", "-t", "numbers", "--json"),
                                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
            for line in self.child.stdout:
                now = time.time()
                number, _, sent = json.loads(line)["data"].partition(" ")
                self.got.append((int(number), float(sent), now))
            self.child.wait()
            time.sleep(0.1)

    def end(self):
        self.stop = True
        if self.child:
            self.child.kill()


PUBLISHER = """
import http.client, sys, time
rate, api = int(sys.argv[1]), http.client.HTTPConnection("127.0.0.1", 4080, timeout=10)
begin, n = time.time(), 0
while True:
    api.request("POST", "/v1/topics/numbers", f"{n} {time.time():.6f}")
    answer = api.getresponse()
    body = answer.read().decode()
    print(n, answer.status, body.strip(), flush=True)
    n += 1
    time.sleep(max(0, begin + n / rate - time.time()))
"""


def rolling():
    # Not at the sender: nobody is told what he said himself.
    hearers = {t.container: Hearer(t) for t in tasks() if t.service != "sender"}
    sender = tasks("sender")[0]
    old = {t.container for t in tasks("peer")}
    until("all hear", lambda: min(len(t.ask("mesh")["topics"].get("numbers", [])) for t in tasks() if t.service != "sender") > 0, 30)
    publisher = subprocess.Popen(sender.inside(sys.executable, "-c", PUBLISHER, str(RATE)), stdout=subprocess.PIPE, text=True)
    answers = []
    reader = threading.Thread(target=lambda: answers.extend(publisher.stdout), daemon=True)
    reader.start()
    time.sleep(2)
    other = os.environ.get("SMIDGE_UPDATE_TO")
    command("docker", "service", "update", "--detach", "--force", "--no-resolve-image", *(["--image", other] if other else []),
            f"{STACK}_peer")

    def updated():
        for task in tasks():
            if task.container not in hearers and task.service != "sender":
                hearers[task.container] = Hearer(task)
        state = json.loads(command("docker", "service", "inspect", f"{STACK}_peer"))[0]["UpdateStatus"]["State"]
        if state not in ("updating", "completed"):
            fail(f"the rolling update is {state}")
        return state == "completed" and not {t.container for t in tasks("peer")} & old

    _, took = until("the rolling update is done", updated, 180)
    time.sleep(3)
    publisher.kill()
    reader.join(5)
    time.sleep(1.5)
    for hearer in hearers.values():
        hearer.end()
    sent = {int(a.split()[0]) for a in answers if a.split()[1] == "200"}
    refused = [a.strip() for a in answers if a.split()[1] != "200"]
    say(f"(4) rolling update of peer, one task at a time, {took:.1f} s: {len(sent)} numbered messages at {RATE}/s, "
        f"{len(refused)} refused{': ' + refused[0] if refused else ''}")
    bad = bool(refused)
    for hearer in hearers.values():
        numbers = [n for n, _, _ in hearer.got]
        if not numbers:
            bad = True
            say(f"    {hearer.task.name}: heard nothing")
            continue
        # Of a task that came or went, what lies between its first and its last message. What was said before
        # it was there, and which the others still remember, is told to it as it joins: no delay.
        whole_time = hearer.task.service != "peer"
        due = sent if whole_time else {n for n in sent if min(numbers) <= n <= max(numbers)}
        lost, twice = len(due - set(numbers)), len(numbers) - len(set(numbers))
        joined = min(heard for _, _, heard in hearer.got)
        delays = [heard - said for _, said, heard in hearer.got if said >= joined]
        caught = len(numbers) - len(delays)
        say(f"    {hearer.task.short} heard {min(numbers)} to {max(numbers)}: {lost} lost, {twice} twice, "
            f"{sum(d > LATE for d in delays)} later than {LATE:g} s (slowest {max(delays, default=0) * 1000:.0f} ms); "
            f"{caught} said before it joined")
        bad = bad or lost or twice
    if bad:
        fail("messages were refused, lost or came twice during the rolling update")


def storm():
    """500 messages of 1 KiB, 100 a second."""
    sender = tasks("sender")[0]
    publisher = """
import http.client, os, time
api, began = http.client.HTTPConnection("127.0.0.1", 4080, timeout=10), time.time()
for n in range(500):
    api.request("POST", "/v1/topics/some_topic", os.urandom(1024))
    answer = api.getresponse()
    if answer.status != 200:
        raise SystemExit(answer.read().decode())
    answer.read()
    time.sleep(max(0, began + n / 100 - time.time()))
"""
    command(*sender.inside(sys.executable, "-c", publisher))


def memory(when):
    """Of each native container as the kernel accounts it, without what it could drop of its file cache."""
    figures = {}
    for task in tasks(*FIVE):
        path = f"/sys/fs/cgroup/memory/docker/{task.container}"
        try:
            with open(path + "/memory.usage_in_bytes") as usage, open(path + "/memory.stat") as stat:
                stats = dict(line.split() for line in stat)
                figures.setdefault(task.service, []).append(int(usage.read()) - int(stats["total_inactive_file"]))
        except FileNotFoundError:
            path = f"/sys/fs/cgroup/system.slice/docker-{task.container}.scope"
            with open(path + "/memory.current") as usage, open(path + "/memory.stat") as stat:
                stats = dict(line.split() for line in stat)
                figures.setdefault(task.service, []).append(int(usage.read()) - int(stats["inactive_file"]))
    shown = ", ".join(f"{s} {min(f) / 1e6:.1f} to {max(f) / 1e6:.1f} MB" for s, f in sorted(figures.items()))
    say(f"(7) memory of the containers {when}: {shown}")
    if max(map(max, figures.values())) > MEMORY:
        fail(f"a container has more than {MEMORY / 1e6:.0f} MB {when}")


def main():
    delivery(float(sys.argv[3]))
    until("the stack is whole", whole(FIVE), 60)
    shown()
    capabilities()
    time.sleep(5)
    memory("at rest, 5 nodes")
    scale()
    kill()
    rolling()
    trouble.check()
    if sys.argv[4:]:
        mixed.check(sys.argv[4:])
    else:
        say("(6) no other architecture: --native")
    storm()
    memory("after all that, and 500 messages of 1 KiB in 5 s")


main()
