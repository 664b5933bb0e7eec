#!/usr/bin/env python3
"""Holds smidge against js-libp2p and py-libp2p, whose gossip stream belongs to the first connection of a peer.

Usage: tests/interop/run.py [SMIDGE]     (default: target/debug/smidge; builds nothing)

js-libp2p and a Node.js of its own come from the npm registry, versions as in package-lock.json, and py-libp2p from PyPI,
versions as in requirements.txt, into a folder that is removed in the end (or kept and used again: SMIDGE_INTEROP_DIR).
Needs npm, and Python with pip. Everything else is on loopback. Bounded: each wait ends after PATIENCE seconds, with the
logs of both sides.
"""

import concurrent.futures
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
SMIDGE = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parents[1] / "target/debug/smidge").resolve()
TOPIC = "interop"
PATIENCE = 90
LISTEN = {"quic": "/ip4/127.0.0.1/udp/{}/quic-v1", "tcp": "/ip4/127.0.0.1/tcp/{}"}
# The first case's port of smidge, which stays when the node comes back; each has its own.
OURS = 46001


class Failed(Exception):
    pass


class Process:
    """A process whose lines can be waited for."""

    def __init__(self, name, argv, **kwargs):
        self.name, self.said, self.lines = name, [], queue.Queue()
        self.process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            self.lines.put(line.rstrip())

    def forget(self):
        """Only lines from now on count."""
        while not self.lines.empty():
            self.lines.get_nowait()

    def wait(self, pattern, what=None):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                line = self.lines.get(timeout=max(0.01, end - time.monotonic()))
            except queue.Empty:
                raise Failed(f"{self.name} did not say {what or pattern!r} within {PATIENCE} s") from None
            if found := re.search(pattern, line):
                return found

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Smidge:
    def __init__(self, folder, listen, dial=(), settings=()):
        self.folder, self.listen, self.settings = folder, listen, settings
        self.api = f"unix:{folder}/api.sock"
        self.start(dial)

    def start(self, dial):
        argv = [SMIDGE, "run", "--set", f"identity.key_file={self.folder}/key", "--set", f"api.listen={self.api}",
                "--listen", self.listen, "--topic", TOPIC]
        for address in dial:
            argv += ["--dial", address]
        for setting in self.settings:
            argv += ["--set", setting]
        env = {**os.environ, "RUST_LOG": "smidge=debug"}
        self.node = Process("smidge", argv, env=env)
        self.node.wait("listening on")

    def stop(self):
        if self.node.process.poll() is None:
            self.node.kill()

    def verb(self, *words):
        done = subprocess.run([SMIDGE, *words, "--api", self.api], capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise Failed(f"smidge {' '.join(words)}: {done.stderr}")
        return done.stdout

    def peers(self):
        return json.loads(self.verb("peers", "--json"))["peers"]


def install():
    folder = pathlib.Path(os.environ.get("SMIDGE_INTEROP_DIR") or tempfile.mkdtemp(prefix="smidge-interop-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "peer.mjs", "peer.py", "requirements.txt"):
        shutil.copy(HERE / name, folder)
    if not (folder / "node_modules/libp2p").is_dir():
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True, timeout=300)
    if not (folder / "python").is_dir():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--root-user-action", "ignore",
                        "--disable-pip-version-check", "--target", "python", "-r", "requirements.txt"],
                       cwd=folder, check=True, timeout=600)
    return folder


def js(folder, listen):
    return Process("js", [folder / "node_modules/.bin/node", folder / "peer.mjs", listen, TOPIC], cwd=folder)


def py(folder, listen):
    return Process("py", [sys.executable, folder / "peer.py", listen, TOPIC], cwd=folder,
                   env={**os.environ, "PYTHONPATH": str(folder / "python")})


def both_hear(smidge, peer, when):
    smidge.node.forget()
    smidge.node.wait(rf"message \S+ from \S+ on {TOPIC}", f"a message of {peer.name}, {when}")
    text = f"to {peer.name} {time.monotonic()}"
    smidge.verb("pub", "--topic", TOPIC, "--message", text)
    peer.wait(re.escape(text), f"a message of smidge, {when}")


def a_node_that_is_killed_and_is_back_with_its_key(peer, address, listen, state):
    """The peer has an old connection when the new one comes up, and opens no stream over a second one."""
    smidge = Smidge(state, listen, [address])
    try:
        both_hear(smidge, peer, "at first")
        smidge.node.kill()
        time.sleep(1)
        before = time.monotonic()
        smidge.start([address])
        both_hear(smidge, peer, "after the restart")
        return f"heard again after {time.monotonic() - before:.1f} s"
    finally:
        logs(smidge.node, peer)
        smidge.stop()


def a_second_connection_beside_a_healthy_one(peer, address, listen, state):
    """The peer dials us, and 12 s later we dial it: its stream is on the first connection."""
    smidge = Smidge(state, listen)
    try:
        own = json.loads(smidge.verb("status", "--json"))
        peer.tell(f"dial {own['listening'][0]}/p2p/{own['peer']}")
        both_hear(smidge, peer, "over the connection that it made")
        time.sleep(12)
        smidge.verb("ping", address, "-c", "1")
        end = time.monotonic() + 8
        while time.monotonic() < end:
            both_hear(smidge, peer, "with two connections")
            [seen] = smidge.peers()
            if seen["gossip"] != "up":
                raise Failed(f"gossip is {seen['gossip']}: {seen}")
            if len(seen["connections"]) != 2:
                raise Failed(f"a healthy connection is gone: {seen}")
            time.sleep(1)
        return "both connections stand, both sides hear"
    finally:
        logs(smidge.node, peer)
        smidge.stop()


def logs(*processes):
    if sys.exc_info()[0]:
        for process in processes:
            print(f"--- {process.name}", *process.said[-60:], sep="\n", flush=True)


def a_peer_behind_a_relay_without_limits(folder, listen, state):
    """js runs no gossip over a relayed connection that it is told a limit of."""
    limits = ("relay.server=true", "relay.circuit_duration=0s", "relay.circuit_bytes=0B")
    for name in ("relay", "node"):
        os.mkdir(f"{state}/{name}")
    relay = Smidge(f"{state}/relay", listen, settings=limits)
    node = peer = None
    try:
        own = json.loads(relay.verb("status", "--json"))
        through = f"{own['listening'][0]}/p2p/{own['peer']}"
        peer = js(folder, f"{through}/p2p-circuit")
        relayed = peer.wait(r"^listening (\S*p2p-circuit\S*)").group(1)
        node = Smidge(f"{state}/node", LISTEN["quic"].format(0), [relayed], settings=("relay.client=true",))
        both_hear(node, peer, "through the relay")
        return "both sides hear"
    finally:
        logs(relay.node, *(process for process in (node and node.node, peer) if process))
        for each in (relay, node):
            each and each.stop()
        peer and peer.kill()


CASES = [
    (a_second_connection_beside_a_healthy_one, js, "quic"),
    (a_node_that_is_killed_and_is_back_with_its_key, js, "quic"),
    (a_node_that_is_killed_and_is_back_with_its_key, js, "tcp"),
    (a_second_connection_beside_a_healthy_one, py, "quic"),
    (a_node_that_is_killed_and_is_back_with_its_key, py, "quic"),
    (a_node_that_is_killed_and_is_back_with_its_key, py, "tcp"),
]


def hold(folder, number, case):
    check, other, transport = case
    what = f"{other.__name__} over {transport}: {check.__name__}"
    with tempfile.TemporaryDirectory(prefix="smidge-") as state:
        peer = other(folder, LISTEN[transport].format(0))
        try:
            address = peer.wait(r"^listening (\S+)").group(1)
            print(f"ok: {what}: {check(peer, address, LISTEN[transport].format(OURS + number), state)}", flush=True)
            return 0
        except Failed as why:
            print(f"FAILED: {what}: {why}", flush=True)
            return 1
        finally:
            peer.kill()


def hold_relayed(folder, number):
    with tempfile.TemporaryDirectory(prefix="smidge-") as state:
        what = a_peer_behind_a_relay_without_limits
        try:
            print(f"ok: js: {what.__name__}: {what(folder, LISTEN['quic'].format(OURS + number), state)}", flush=True)
            return 0
        except Failed as why:
            print(f"FAILED: js: {what.__name__}: {why}", flush=True)
            return 1


def main():
    folder = install()
    # They wait for each other's timeouts, most of the time.
    with concurrent.futures.ThreadPoolExecutor(len(CASES) + 1) as pool:
        relayed = pool.submit(hold_relayed, folder, len(CASES))
        failed = sum(pool.map(lambda numbered: hold(folder, *numbered), enumerate(CASES))) + relayed.result()
    if not os.environ.get("SMIDGE_INTEROP_DIR"):
        shutil.rmtree(folder)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
