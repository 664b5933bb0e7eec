#!/usr/bin/env python3
"""From nothing to a message on three machines: what is typed and how long it takes, for smidge and what people know.

    bench/first-hour/run.py [--smidge BINARY] [--rounds N] [SYSTEM…]

Builds nothing. The machines are network namespaces on a bridge in a namespace of their own: nothing else is reached, and all of it
is gone when this ends. For each program its commands are run as a newcomer would type them, on each machine, with the
files that they need; the clock runs from the first command until what is said on the first machine has come to the third.
A step is a command, or a line in a file; a machine is named by its address where a program has to know of another. Programs that
are not there are left out, and said to be (Debian: mosquitto, mosquitto-clients, nats-server, serf, netcat-openbsd).
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
INSIDE = "SMIDGE_FIRST_HOUR_INSIDE"
ADDRESSES = ["10.66.0.1", "10.66.0.2", "10.66.0.3"]
FIRST = ADDRESSES[0]
PATIENCE = 60
# What is needed before a message: files by machine, a daemon on each machine, who listens on the third, who speaks on the first.
SYSTEMS = {
    "smidge": {
        "needs": [],
        "daemon": ["smidge run --mdns --topic home"] * 3,
        "listen": "smidge sub -t home",
        "speak": "smidge pub -t home -m hello",
        "lost with one machine": "what is on it",
    },
    "mosquitto, one broker": {
        "needs": ["mosquitto", "mosquitto_pub"],
        "files": [{"m.conf": "listener 1883\nallow_anonymous true\n"}, {}, {}],
        "daemon": ["mosquitto -c m.conf", None, None],
        "listen": f"mosquitto_sub -h {FIRST} -t home",
        "speak": f"mosquitto_pub -h {FIRST} -t home -m hello",
        "lost with one machine": "all, with the broker's",
    },
    "mosquitto, three bridged": {
        "needs": ["mosquitto", "mosquitto_pub"],
        "files": [
            {"m.conf": "listener 1883\nallow_anonymous true\n"},
            *({"m.conf": f"listener 1883\nallow_anonymous true\nconnection first\naddress {FIRST}\n"
                         f"remote_clientid machine{n}\ntopic # both\n"} for n in (2, 3)),
        ],
        "daemon": ["mosquitto -c m.conf"] * 3,
        "listen": "mosquitto_sub -t home",
        "speak": "mosquitto_pub -t home -m hello",
        "lost with one machine": "what is on it; all between the others, with the first",
    },
    "nats-server, a cluster": {
        "needs": ["nats-server", "nc"],
        "daemon": ["nats-server --cluster_name home --cluster nats://0.0.0.0:6222",
                   *(f"nats-server --cluster_name home --cluster nats://0.0.0.0:6222 --routes nats://{FIRST}:6222",) * 2],
        "listen": r"until nc -z 127.0.0.1 4222; do sleep 0.05; done; (printf 'SUB home 1\r\n'; sleep 60) | nc 127.0.0.1 4222",
        "speak": r"(printf 'PUB home 5\r\nhello\r\n'; sleep 0.1) | nc -q 0 127.0.0.1 4222",
        "lost with one machine": "what is on it",
    },
    "serf": {
        "needs": ["serf"],
        "daemon": [f"serf agent -node m1 -bind {FIRST}",
                   *(f"serf agent -node m{n} -bind {ADDRESSES[n - 1]} -retry-join {FIRST}" for n in (2, 3))],
        "listen": "serf monitor",
        "speak": "serf event hello",
        "lost with one machine": "what is on it",
    },
}


def steps(system):
    """Commands, and lines of files."""
    files = [text for machine in system.get("files", []) for text in machine.values()]
    return sum(d is not None for d in system["daemon"]) + 2, sum(text.count("\n") for text in files)


class Machine:
    """A network namespace with a directory for its files, and what was started there."""

    def __init__(self, number, directory, smidge):
        self.name, self.directory = f"m{number + 1}", os.path.join(directory, f"m{number + 1}")
        os.makedirs(self.directory)
        tools = os.path.join(directory, "bin")
        self.environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "HOME": self.directory,
                            "XDG_STATE_HOME": os.path.join(self.directory, "state"), "SMIDGE__IDENTITY__KEY_FILE": os.path.join(self.directory, "key")}
        os.makedirs(tools, exist_ok=True)
        if not os.path.exists(os.path.join(tools, "smidge")):
            os.symlink(smidge, os.path.join(tools, "smidge"))
        self.started = []
        for words in (["netns", "add", self.name], ["link", "add", self.name, "type", "veth", "peer", "name", "eth0", "netns", self.name],
                      ["link", "set", self.name, "master", "lan", "up"], ["-n", self.name, "link", "set", "lo", "up"],
                      ["-n", self.name, "address", "add", f"{ADDRESSES[number]}/24", "dev", "eth0"],
                      ["-n", self.name, "link", "set", "eth0", "up"],
                      ["-n", self.name, "route", "add", "224.0.0.0/4", "dev", "eth0"]):
            subprocess.run(["ip", *words], check=True)

    def start(self, command):
        out = open(os.path.join(self.directory, f"{len(self.started)}.log"), "w+b")
        process = subprocess.Popen(["ip", "netns", "exec", self.name, "sh", "-c", command], cwd=self.directory, env=self.environment,
                                   stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        self.started.append((process, out))
        return process, out.name

    def end(self):
        for process, out in self.started:
            try:
                os.killpg(process.pid, 9)
            except ProcessLookupError:
                pass
            process.wait()
            out.close()
        # The namespace goes when the kernel gets to it; its link's name is wanted again.
        subprocess.run(["ip", "link", "delete", self.name], check=True)
        subprocess.run(["ip", "netns", "delete", self.name], check=True)


def said(path):
    with open(path, errors="replace") as log:
        return log.read()


def once(system, directory, smidge):
    """Seconds until the first message came, and how often it had to be said."""
    machines = [Machine(n, directory, smidge) for n in range(3)]
    try:
        began = time.monotonic()
        for machine, files, daemon in zip(machines, system.get("files", [{}] * 3), system["daemon"], strict=True):
            for name, text in files.items():
                pathlib.Path(machine.directory, name).write_text(text)
            if daemon:
                machine.start(daemon)
        # Whoever listens and whoever speaks tries again until the program is there, as a person would.
        listener, heard = machines[2].start(system["listen"])
        tries = 0
        while time.monotonic() - began < PATIENCE:
            if listener.poll() is not None:
                listener, heard = machines[2].start(system["listen"])
            tries += 1
            speaker, _ = machines[0].start(system["speak"])
            until = time.monotonic() + 0.25
            while time.monotonic() < until or speaker.poll() is None:
                if "hello" in said(heard):
                    return time.monotonic() - began, tries
                if time.monotonic() - began > PATIENCE:
                    break
                time.sleep(0.01)
        logs = "\n".join(f"--- {m.name}: {said(out.name)[-600:]}" for m in machines for _, out in m.started[:2])
        raise SystemExit(f"no message within {PATIENCE} s\n{logs}")
    finally:
        for machine in machines:
            machine.end()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", metavar="SYSTEM")
    parser.add_argument("--smidge", default=str(ROOT / "target/release/smidge"))
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    unknown = set(args.systems) - set(SYSTEMS)
    if unknown:
        parser.error(f"no system {', '.join(unknown)}; there are {', '.join(SYSTEMS)}")
    if os.geteuid() != 0 or not os.path.exists(args.smidge):
        parser.error("this makes network namespaces, as root; and --smidge names a binary that is there")
    if not os.environ.get(INSIDE):
        # Names of namespaces and all links are of this process alone.
        os.execvpe("unshare", ["unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc",
                               sys.executable, *sys.argv], {**os.environ, INSIDE: "1"})
    os.makedirs("/run/netns", exist_ok=True)
    for words in (["mount", "-t", "tmpfs", "netns", "/run/netns"], ["ip", "link", "set", "lo", "up"],
                  ["ip", "link", "add", "lan", "type", "bridge"], ["ip", "link", "set", "lan", "up"]):
        subprocess.run(words, check=True)
    smidge, names = os.path.abspath(args.smidge), args.systems or list(SYSTEMS)
    missing = {name: [tool for tool in SYSTEMS[name]["needs"] if not shutil.which(tool)] for name in names}
    print("| | commands | lines in files | seconds (median, slowest) | said | with one machine is lost |\n|---|---|---|---|---|---|")
    for name in names:
        if missing[name]:
            print(f"| {name} | left out: there is no {', '.join(missing[name])} | | | | |")
            continue
        results = []
        for _ in range(args.rounds):
            with tempfile.TemporaryDirectory() as directory:
                results.append(once(SYSTEMS[name], directory, smidge))
        seconds, (commands, lines) = sorted(s for s, _ in results), steps(SYSTEMS[name])
        print(f"| {name} | {commands} | {lines or '–'} | {statistics.median(seconds):.2f}, {seconds[-1]:.2f} | "
              f"{statistics.median(t for _, t in results):g} × | {SYSTEMS[name]['lost with one machine']} |", flush=True)


if __name__ == "__main__":
    main()
