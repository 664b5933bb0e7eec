#!/usr/bin/env python3
"""Whole nodes beside mosquitto, as MQTT brokers: one beside one, three beside three that are bridged.

Usage: bench/mqtt.py SMIDGE LOAD [--rounds N] [--quick]

LOAD is crates/mqtt/examples/load.rs (cargo build --release -p smidge-mqtt --example load). Each row is taken N times, by turns,
and the middle one counts. Prints a table; needs mosquitto in the path, and loopback alone.
"""

import argparse
import os
import pathlib
import re
import socket
import statistics
import struct
import subprocess
import tempfile
import time

PATIENCE = 60


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"nothing listens on {port}")


class Brokers:
    """So many brokers in one space, with their ports and processes."""

    def __init__(self, system, count, binary):
        self.system, self.folder = system, tempfile.TemporaryDirectory()
        self.ports, self.processes = [free_port() for _ in range(count)], []
        for n, port in enumerate(self.ports):
            getattr(self, system)(n, port, binary)
            wait_for(port)
        if count > 1:
            self.until_one_space()

    def start(self, argv):
        self.processes.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                               stderr=open(f"{self.folder.name}/{len(self.processes)}.log", "w")))

    def mosquitto(self, n, port, _):
        # As its own documentation has it: defaults, but for queues that a burst of the load generator needs.
        config = [f"listener {port} 127.0.0.1", "allow_anonymous true", "max_queued_messages 0", "persistence false", "log_dest none"]
        if n > 0:
            # A star: each has its own name at the first, or they throw each other out.
            config += [f"connection to-first-{n}", f"address 127.0.0.1:{self.ports[0]}", f"remote_clientid bridge-{n}",
                       f"local_clientid local-{n}", "topic # both 2", "bridge_protocol_version mqttv311"]
        path = pathlib.Path(self.folder.name, f"{n}.conf")
        path.write_text("\n".join(config) + "\n")
        self.start(["mosquitto", "-c", str(path)])

    def smidge(self, n, port, binary):
        self.mesh = getattr(self, "mesh", None) or [free_port() for _ in self.ports]
        argv = [binary, "run", "--set", "identity.ephemeral=true", "--api", "off", "--listen",
                f"/ip4/127.0.0.1/udp/{self.mesh[n]}/quic-v1", "--set", f"mqtt.listen=127.0.0.1:{port}", "--set",
                "log.level=warn", "--set", "mqtt.queue_messages=1000000", "--set", "mqtt.queue=64MiB", "--set",
                "mqtt.connections=4096", "--set", "mqtt.sessions=4096"]
        for other in self.mesh[:n]:
            argv += ["--dial", f"127.0.0.1:{other}"]
        self.start(argv)

    def until_one_space(self):
        """Until what is said at the first is heard at all others."""
        for port in self.ports[1:]:
            with client(port, "probe-sub") as sub, client(self.ports[0], "probe-pub") as pub:
                sub.sendall(b"\x82\x0a\0\1\0\5probe\0")
                assert sub.recv(5)[0] == 0x90
                sub.settimeout(0.2)
                for _ in range(PATIENCE * 5):
                    pub.sendall(b"\x30\x08\0\5probex")
                    try:
                        if sub.recv(100):
                            break
                    except TimeoutError:
                        pass
                else:
                    raise SystemExit(f"{self.system}: the brokers do not hear each other")
        time.sleep(0.5)

    def addresses(self):
        return ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def pids(self):
        return [str(process.pid) for process in self.processes]

    def resident(self):
        text = pathlib.Path(f"/proc/{self.processes[0].pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text).group(1)) * 1024

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.folder.cleanup()


def client(port, name):
    one = socket.create_connection(("127.0.0.1", port), PATIENCE)
    body = b"\0\4MQTT\4\2\0\0" + struct.pack(">H", len(name)) + name.encode()
    one.sendall(b"\x10" + bytes([len(body)]) + body)
    answer = one.recv(4)
    assert answer == b"\x20\2\0\0", answer
    return one


def load(binary, *args):
    done = subprocess.run([binary, *map(str, args)], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(f"load {args}: {done.stderr}")
    return done.stdout


def rate(brokers, binary, qos, count, subscribers=1, window=20):
    out = load(binary, brokers.addresses(), qos, count, subscribers, window, 100, *brokers.pids())
    cpu = sum(float(cost) for cost in re.findall(r"([\d.]+) µs CPU", out))
    return {"rate": float(re.search(r"delivered (\d+)/s", out).group(1)), "lost": int(re.search(r"lost (\d+)", out).group(1)), "cpu": cpu}


def latency(brokers, binary, qos):
    out = load(binary, "latency", brokers.addresses(), 1000, 10_000, qos)
    p50, p99 = re.search(r"p50 (\d+) µs, p99 (\d+) µs", out).groups()
    return {"p50": float(p50), "p99": float(p99), "lost": int(re.search(r"lost (\d+)", out).group(1))}


def idle(brokers, _):
    before = brokers.resident()
    clients = [client(brokers.ports[0], f"idle-{n}") for n in range(1000)]
    time.sleep(1)
    grown = brokers.resident() - before
    for one in clients:
        one.close()
    return {"bytes": grown / 1000}


def resident(brokers, binary):
    load(binary, brokers.addresses(), 0, 1_000_000)
    return {"bytes": brokers.resident()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("smidge")
    parser.add_argument("load")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    part = 10 if args.quick else 1
    rows = [
        ("QoS 0, 1 to 1", 1, lambda b, l: rate(b, l, 0, 1_000_000 // part)),
        ("QoS 1, window 20", 1, lambda b, l: rate(b, l, 1, 200_000 // part)),
        ("QoS 1, window 1", 1, lambda b, l: rate(b, l, 1, 50_000 // part, window=1)),
        ("QoS 0, 1 to 100", 1, lambda b, l: rate(b, l, 0, 30_000 // part, subscribers=100)),
        ("three, QoS 0", 3, lambda b, l: rate(b, l, 0, 200_000 // part, subscribers=2)),
        ("three, QoS 1, window 20", 3, lambda b, l: rate(b, l, 1, 100_000 // part, subscribers=2)),
        ("three, 1,000/s, QoS 0", 3, lambda b, l: latency(b, l, 0)),
        ("three, 1,000/s, QoS 1", 3, lambda b, l: latency(b, l, 1)),
        ("resident after 1,000,000", 1, resident),
        ("1,000 idle clients, each", 1, idle),
    ]
    print(f"load average before: {os.getloadavg()[0]:.1f}; {args.rounds} rounds")
    print("| what | smidge | mosquitto | ratio |\n|---|---|---|---|")
    for what, count, measure in rows:
        got = {"smidge": [], "mosquitto": []}
        for _ in range(args.rounds):
            for system, figures in got.items():
                brokers = Brokers(system, count, args.smidge)
                try:
                    figures.append(measure(brokers, args.load))
                finally:
                    brokers.stop()
        middle = {system: {key: statistics.median(one[key] for one in figures) for key in figures[0]} for system, figures in got.items()}
        shown = {system: ", ".join(f"{key} {value:,.2f}" if value < 100 else f"{key} {value:,.0f}" for key, value in figures.items())
                 for system, figures in middle.items()}
        ratios = [f"{key} {middle['smidge'][key] / middle['mosquitto'][key]:.2f}" for key in middle["smidge"]
                  if key != "lost" and middle["mosquitto"][key]]
        print(f"| {what} | {shown['smidge']} | {shown['mosquitto']} | {', '.join(ratios)} |", flush=True)
    print(f"load average after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
