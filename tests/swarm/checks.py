"""What has to hold in a Swarm, with its figures; tests/swarm/run.sh deploys the stack and calls this.

    checks.py STACK BINARY SECONDS_SINCE_EPOCH_OF_DEPLOY

The nodes are asked from the host: BINARY runs in the network namespace of each task.
"""

import json
import re
import subprocess
import sys
import threading
import time

STACK, BINARY = sys.argv[1], sys.argv[2]
SERVICES = ("bootstrap", "peer", "sender")
CONNECTED_WITHIN = 15.0
LATE = 1.0
RATE = 20


def command(*words, timeout=60):
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=True).stdout


class Task:
    """A running task: its container, its process, its peer id."""

    def __init__(self, container):
        inspected = json.loads(command("docker", "inspect", container))[0]
        self.container = inspected["Id"]
        self.name = inspected["Name"].lstrip("/")
        self.service = inspected["Config"]["Labels"]["com.docker.swarm.service.name"].removeprefix(STACK + "_")
        self.pid = inspected["State"]["Pid"]
        self.peer = None
        networks = inspected["NetworkSettings"]["Networks"]
        self.ip = next(n["IPAddress"] for name, n in networks.items() if name.startswith(STACK + "_"))

    def inside(self, *words):
        return ["nsenter", "-t", str(self.pid), "-n", *words]

    def ask(self, *verb):
        return json.loads(command(*self.inside(BINARY, *verb, "--json"), timeout=20))

    def identify(self):
        if self.peer is None:
            self.peer = self.ask("status")["peer"]
        return self.peer

    def peers(self):
        return {peer["peer"]: peer for peer in self.ask("peers")["peers"]}


known = {}


def tasks(service=None):
    """Those that run now. Raises while one comes or goes."""
    label = "com.docker.stack.namespace=" + STACK
    running = command("docker", "ps", "-q", "--no-trunc", "--filter", "label=" + label).split()
    for container in running:
        if container not in known:
            known[container] = Task(container)
    return [known[c] for c in running if service in (None, known[c].service)]


def until(what, condition, patience):
    """Waits until `condition` gives something, and returns (it, seconds)."""
    began, last = time.monotonic(), "never tried"
    while time.monotonic() - began < patience:
        try:
            found = condition()
            if found is not None and found is not False:
                return found, time.monotonic() - began
            last = "not so"
        except (subprocess.SubprocessError, StopIteration, KeyError, ValueError, OSError) as error:
            last = f"{error} {getattr(error, 'stderr', '') or ''}"
        time.sleep(0.1)
    raise SystemExit(f"FAILED: {what}: not after {patience} s ({last})")


def say(text):
    print(text, flush=True)


def whole(counts):
    """Whether the mesh is whole: that many tasks, each connected to those it looks for, to nobody departed."""
    everyone = tasks()
    if {s: sum(t.service == s for t in everyone) for s in SERVICES} != counts:
        return False
    ids = {task.identify() for task in everyone}
    wanted = {task.peer for task in everyone if task.service in ("bootstrap", "peer")}
    for task in everyone:
        connected = set(task.peers())
        if not (wanted - {task.peer}) <= connected or not connected <= ids:
            whole.why = f"{task.name}: {len(connected & ids)} of {len(wanted)}, {len(connected - ids)} departed"
            return False
    return True


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
    from datetime import datetime
    seconds = datetime.fromisoformat(last.replace("Z", "+00:00")).timestamp() - deployed
    twice = [t.name for t, stamps in lines.items() if len(stamps) > 1]
    if twice:
        raise SystemExit(f"FAILED: the message came more than once at {', '.join(twice)}")
    say(f"(1) 5 tasks run; the sender's message is at bootstrap and all 3 peers, once each, {seconds:.1f} s after `stack deploy`")


def scale():
    began = time.monotonic()
    command("docker", "service", "scale", "--detach", f"{STACK}_peer=20")
    until("20 peers run", lambda: len(tasks("peer")) == 20, 120)
    started = time.monotonic()
    counts = {"bootstrap": 1, "peer": 20, "sender": 1}
    try:
        _, seconds = until("20 peers, bootstrap and the sender are connected", lambda: whole(counts), 60)
    except SystemExit as failure:
        raise SystemExit(f"{failure}; {getattr(whole, 'why', '')}") from None
    say(f"(2) peer=20: every container started after {started - began:.1f} s; all 22 nodes connected {seconds:.1f} s "
        f"after the last one (with its first health check, 5 s, in between)")
    if seconds > CONNECTED_WITHIN:
        raise SystemExit(f"FAILED: {seconds:.1f} s is more than {CONNECTED_WITHIN} s")
    memory("with 22 nodes")
    began = time.monotonic()
    command("docker", "service", "scale", "--detach", f"{STACK}_peer=3")
    until("3 peers run", lambda: len(tasks("peer")) == 3, 120)
    gone = time.monotonic()
    counts["peer"] = 3
    _, seconds = until("the departed 17 are forgotten", lambda: whole(counts), 60)

    def records():
        """Names hold the three peers, and nothing that is not connected."""
        for task in tasks():
            for name in task.ask("names")["names"]:
                held = name["records"]
                if name["name"] == "peer:4001" and len(held) != 3 or any(r["state"] not in ("connected", "own") for r in held):
                    records.why = f"{task.name}: {name['name']} {[(r['address'], r['state']) for r in held]}"
                    return False
        return True

    def tables():
        sizes = {task.name.rsplit(".", 1)[0].removeprefix(STACK + "_"): task.ask("status")["table"] for task in tasks()}
        tables.why = str(sizes)
        return max(sizes.values()) <= 4

    def forgotten(check):
        try:
            return f"{seconds + until(check.__name__, check, 90)[1]:.1f} s"
        except SystemExit:
            return f"NOT within 90 s ({check.why})"

    in_names, in_tables = forgotten(records), forgotten(tables)
    say(f"    peer=3: 17 stopped after {gone - began:.1f} s; then, of the departed: no connection after {seconds:.1f} s, "
        f"no record after {in_names}, no entry of the routing tables after {in_tables}")
    if "NOT" in in_names + in_tables:
        raise SystemExit("FAILED: the departed are not forgotten")


def kill():
    old = tasks("bootstrap")[0]
    before = old.identify()
    began = time.monotonic()
    command("docker", "kill", old.container)
    new, replaced = until("bootstrap has a new task", lambda: next(t for t in tasks("bootstrap") if t is not old), 60)
    same = until("the new bootstrap answers", new.identify, 60)[0] == before

    others = [task for task in tasks() if task.service != "bootstrap"]

    def connected(task):
        peer = task.peers().get(new.peer)
        ages = [c["age_s"] for c in peer["connections"] if new.ip in c["address"]] if peer else []
        return bool(ages) and min(ages) <= time.monotonic() - began

    def in_table(task):
        return new.ip in json.dumps(task.ask("dht", "find-peer", new.peer))

    until("the new bootstrap is connected to every node", lambda: all(map(connected, others)), 60)
    after = time.monotonic() - began
    until("the new bootstrap is in every node's table", lambda: all(map(in_table, others)), 60)
    say(f"(3) docker kill bootstrap: a new task after {replaced:.1f} s at {new.ip} (was {old.ip}), "
        f"{'the same' if same else 'ANOTHER'} peer id; connected to everybody after {after:.1f} s, "
        f"in everybody's table after {time.monotonic() - began:.1f} s")
    if not same:
        raise SystemExit("FAILED: the derived key changed")
    until("all is whole again", lambda: whole({"bootstrap": 1, "peer": 3, "sender": 1}), 60)


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
    began = time.monotonic()
    command("docker", "service", "update", "--detach", "--force", f"{STACK}_peer")

    def updated():
        for task in tasks():
            if task.container not in hearers and task.service != "sender":
                hearers[task.container] = Hearer(task)
        state = json.loads(command("docker", "service", "inspect", f"{STACK}_peer"))[0]["UpdateStatus"]["State"]
        if state not in ("updating", "completed"):
            raise SystemExit(f"FAILED: the rolling update is {state}")
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
        say(f"    {hearer.task.name.rsplit('.', 1)[0]} heard {min(numbers)} to {max(numbers)}: {lost} lost, {twice} twice, "
            f"{sum(d > LATE for d in delays)} later than {LATE:g} s (slowest {max(delays, default=0) * 1000:.0f} ms); "
            f"{caught} said before it joined")
        bad = bad or lost or twice
    if bad:
        raise SystemExit("FAILED: messages were refused, lost or came twice during the rolling update")


def memory(when):
    """Of each container as the kernel accounts it, without what it could drop of its file cache."""
    figures = {}
    for task in tasks():
        path = f"/sys/fs/cgroup/memory/docker/{task.container}"
        try:
            with open(path + "/memory.usage_in_bytes") as usage, open(path + "/memory.stat") as stat:
                stats = dict(line.split() for line in stat)
                figures.setdefault(task.service, []).append((int(usage.read()) - int(stats["total_inactive_file"])) / 2**20)
        except FileNotFoundError:
            return say(f"(7) memory {when}: not measured, control groups are not version 1 here")
    shown = ", ".join(f"{s} {min(f):.1f} to {max(f):.1f} MiB" for s, f in sorted(figures.items()))
    say(f"(7) memory of the containers {when}: {shown}")


def main():
    delivery(float(sys.argv[3]))
    until("the stack is whole", lambda: whole({"bootstrap": 1, "peer": 3, "sender": 1}), 60)
    time.sleep(5)
    memory("at rest, 5 nodes")
    scale()
    kill()
    rolling()


main()
