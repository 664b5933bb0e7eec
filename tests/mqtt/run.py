#!/usr/bin/env python3
"""Real MQTT clients at two nodes: two of each kind, one at either, and each hears what all the others say.

Usage: tests/mqtt/run.py [SMIDGE]     (default: target/debug/smidge; builds nothing)

paho-mqtt and aiomqtt (which Home Assistant has) come from PyPI, versions as in requirements.txt, and MQTT.js (which Node-RED
has) from the npm registry, as in package-lock.json, into a folder that is removed in the end (or kept and used again:
SMIDGE_MQTT_DIR). They come over TCP, TLS and WebSocket; MQTT.js in Node.js and in Chromium. Needs npm, node, Python with pip,
openssl, mosquitto's clients, Paho's C client where Debian has it, chromium and chromedriver. Everything else is on loopback.
Bounded: each wait ends after PATIENCE seconds, with what was said.
"""

import http.server
import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
SMIDGE = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else HERE.parents[1] / "target/debug/smidge").resolve()
PATIENCE = 60
# Messages of each client at each quality.
COUNT = 3


class Failed(Exception):
    pass


class Process:
    """A process whose lines can be waited for."""

    def __init__(self, name, argv, **kwargs):
        self.name, self.said, self.more = name, [], threading.Condition()
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                        text=True, **kwargs)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            with self.more:
                self.said.append(line.rstrip())
                self.more.notify_all()

    def wait(self, what, condition):
        end = time.monotonic() + PATIENCE
        with self.more:
            while not (found := condition(self.said)):
                if not self.more.wait(timeout=max(0.0, end - time.monotonic())) and time.monotonic() >= end:
                    raise Failed(f"{self.name}: no {what} within {PATIENCE} s; it said: " + " | ".join(self.said[-30:]))
            return found

    def find(self, pattern):
        return self.wait(pattern, lambda said: next((m for line in said if (m := re.search(pattern, line))), None))

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def heard(self):
        with self.more:
            return [line.removeprefix("heard ") for line in self.said if line.startswith("heard ")]

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Chromium:
    """MQTT.js in a page of Chromium, which is driven as tests/page does it."""

    def __init__(self, name, url, origin, folder):
        spec = importlib.util.spec_from_file_location("browser", HERE.parent / "page/browser.py")
        self.page = importlib.util.module_from_spec(spec)
        sys.argv[1:] = [str(SMIDGE)]
        spec.loader.exec_module(self.page)
        self.name, self.browser = name, self.page.Browser(str(folder / "profile"))
        self.browser.open(f"{origin}/page.html")
        self.browser.run("start(arguments[0], arguments[1])", url, name)

    def find(self, pattern):
        try:
            return self.page.until(f"{self.name}: {pattern}", lambda: next(
                (m for line in self.browser.run("return said") if (m := re.search(pattern, line))), None))
        except self.page.Failed as why:
            raise Failed(f"{why}: {self.browser.run('return said')} {self.browser.complaints()}") from None

    def wait(self, what, condition):
        try:
            return self.page.until(what, lambda: condition(self.browser.run("return said")))
        except self.page.Failed as why:
            raise Failed(f"{self.name}: {why}: {self.browser.run('return said')}") from None

    def tell(self, line):
        self.browser.run("say(arguments[0])", line)

    def heard(self):
        return [line.removeprefix("heard ") for line in self.browser.run("return said") if line.startswith("heard ")]

    def stop(self):
        if self.browser:
            self.browser.stop()
            self.browser = None


PAGE = """<!doctype html><title>MQTT.js</title><script src="mqtt.min.js"></script><script>
const said = []; let client;
function start(url, name) {
  client = mqtt.connect(url, { clientId: name, will: { topic: `all/${name}/will`, payload: "lost", qos: 1 } });
  client.on("error", (error) => said.push("error " + error.message));
  client.on("message", (topic, payload) => said.push(`heard ${topic} ${payload}`));
  client.on("connect", () => client.subscribe("all/#", { qos: 2 }, () => said.push("ready")));
}
function say(line) {
  const [topic, qos, retain, ...payload] = line.split(" ");
  client.publish(topic, payload.join(" "), { qos: Number(qos), retain: retain === "1" }, () => said.push("said " + payload.join(" ")));
}
</script>"""


def serve(folder):
    """The page's own web server: another origin than the node."""
    (folder / "web").mkdir(exist_ok=True)
    (folder / "web/page.html").write_text(PAGE)
    shutil.copy(folder / "node_modules/mqtt/dist/mqtt.min.js", folder / "web")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder / "web"))

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


class Node:
    """A node with MQTT over TCP and WebSocket; with TLS, if it has a certificate."""

    def __init__(self, name, dial, settings):
        argv = [SMIDGE, "run", "--set", "identity.ephemeral=true", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1", "--set",
                "api.listen=127.0.0.1:0", "--set", "mqtt.listen=127.0.0.1:0", "--set", "mqtt.websocket=127.0.0.1:0"]
        for setting in settings:
            argv += ["--set", setting]
        for address in dial:
            argv += ["--dial", address]
        self.node = Process(name, argv)
        self.address = "127.0.0.1:" + self.node.find(r"listening on /ip4/127\.0\.0\.1/udp/(\d+)/quic-v1").group(1)
        self.tcp = self.node.find(r"mqtt listening on (mqtts?://[0-9.:]+)").group(1).replace("127.0.0.1", "localhost")
        self.websocket = self.node.find(r"mqtt listening on (wss?://[0-9.:]+/mqtt)").group(1).replace("127.0.0.1", "localhost")


def install():
    folder = pathlib.Path(os.environ.get("SMIDGE_MQTT_DIR") or tempfile.mkdtemp(prefix="smidge-mqtt-"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", "peer.mjs", "peer.py", "requirements.txt"):
        shutil.copy(HERE / name, folder)
    if not (folder / "node_modules/mqtt").is_dir():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=folder, check=True, timeout=300)
    if not (folder / "python").is_dir():
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--root-user-action", "ignore",
                        "--disable-pip-version-check", "--target", "python", "-r", "requirements.txt"],
                       cwd=folder, check=True, timeout=300)
    return folder


def certificates(folder):
    """An authority of one's own, and a certificate for localhost, as docs/mqtt.md makes them."""
    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, timeout=60)

    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "30", "-subj",
            "/CN=smidge tests")
    openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=localhost")
    (folder / "node.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl("x509", "-req", "-in", "node.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-days", "30", "-out",
            "node.crt", "-extfile", "node.ext")
    return [f"mqtt.tls_cert={folder}/node.crt", f"mqtt.tls_key={folder}/node.key"], folder / "ca.crt"


def peers(folder, nodes, cafile, origin, started):
    """Two of each kind, one at either node; Chromium once."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "python")}
    more = [str(cafile)] if cafile else []
    for n, node in enumerate(nodes):
        for library in ("paho", "aiomqtt"):
            for way, url in (("tcp", node.tcp), ("ws", node.websocket)):
                name = f"{library}-{way}-{n}"
                argv = [sys.executable, folder / "peer.py", library, url, name, *more]
                started[name] = Process(name, argv, env=environment)
        for way, url in (("tcp", node.tcp), ("ws", node.websocket)):
            name = f"mqttjs-{way}-{n}"
            started[name] = Process(name, ["node", folder / "peer.mjs", url, name, *more], cwd=folder)
    if origin:
        started["chromium"] = Chromium("chromium", nodes[1].websocket, origin, folder)


def listeners(nodes, cafile, started):
    """Clients that only hear: mosquitto's, and Paho's in C."""
    for n, node in enumerate(nodes):
        port = node.tcp.rsplit(":", 1)[1]
        more = ["--cafile", str(cafile)] if cafile else []
        for version in ("mqttv31", "mqttv311", "mqttv5"):
            name = f"mosquitto-{version}-{n}"
            argv = ["mosquitto_sub", "-h", "localhost", "-p", port, "-V", version, "-i", name, "-t", "all/#", "-q", "2",
                    "-F", "heard %t %p", *more]
            started[name] = Process(name, argv)
        if shutil.which("paho_c_sub") and not cafile:
            name = f"paho-c-{n}"
            argv = ["stdbuf", "-oL", "paho_c_sub", "-h", "localhost", "-p", port, "-t", "all/#", "-q", "2", "-i", name, "-v"]
            started[name] = Process(name, argv)


def everybody_hears_everybody(nodes, speakers, all_of_them):
    # The meshes of MQTT's topic have found each other when each node hears of the other.
    for n, node in enumerate(nodes):
        other = f"paho-tcp-{1 - n}"
        for attempt in range(PATIENCE * 4):
            speakers[f"paho-tcp-{n}"].tell(f"all/hello/{n} 0 0 {attempt}")
            if any(line.startswith(f"all/hello/{n} ") for line in speakers[other].heard()):
                break
            time.sleep(0.25)
        else:
            raise Failed(f"node {1 - n} does not hear node {n}")
    # And everybody is subscribed.
    for name, client in all_of_them.items():
        if name not in speakers:
            for attempt in range(PATIENCE * 4):
                speakers["paho-tcp-0"].tell(f"all/hello/again 1 0 {attempt}")
                with client.more:
                    if any("all/hello/again" in line for line in client.said):
                        break
                time.sleep(0.25)
            else:
                raise Failed(f"{name} hears nothing: {client.said[-20:]}")
    expected = {1: [], 2: []}
    for name, client in speakers.items():
        for qos in (0, 1, 2):
            for n in range(COUNT):
                client.tell(f"all/{name}/{qos} {qos} 0 {name}-{qos}-{n}")
                if qos:
                    expected[qos].append(f"all/{name}/{qos} {name}-{qos}-{n}")
    for name, client in speakers.items():
        client.find(f"said {name}-2-{COUNT - 1}")
    for name, client in all_of_them.items():
        # Paho's C client prints a length, the topic, a tab and the payload.
        mark, apart = (r"\d+ ", "\t") if name.startswith("paho-c") else ("heard ", " ")
        line = re.compile(f"{mark}(\\S+){apart}(.*)")

        def lines(said, line=line):
            return [f"{found[1]} {found[2]}" for one in said if (found := line.fullmatch(one))]

        for qos, wanted in expected.items():
            try:
                client.wait(f"messages at QoS {qos}", lambda said, wanted=wanted: set(wanted) <= set(lines(said)))
            except Failed as why:
                raise Failed(f"{name} misses {sorted(set(wanted) - set(lines(client.said)))}: {why}") from None
        if name in speakers:
            heard = client.heard()
            twice = [line for line in expected[2] if heard.count(line) != 1]
            if twice:
                raise Failed(f"{name} heard at QoS 2 more than once: {twice}")
            for other in speakers:
                order = [line for line in heard if line.startswith(f"all/{other}/2 ")]
                if order != sorted(order):
                    raise Failed(f"{name} heard {other} in another order: {order}")
    return sum(map(len, expected.values())) * len(all_of_them)


def what_stays_and_what_is_lost(nodes, speakers, folder, cafile):
    """A retained value comes to a latecomer at either node, and a will to the other node."""
    speakers["mqttjs-tcp-0"].tell("kept/lamp 1 1 on")
    speakers["mqttjs-tcp-0"].find("said on")
    more = ["--cafile", str(cafile)] if cafile else []
    for node in nodes:
        port = node.tcp.rsplit(":", 1)[1]
        for attempt in range(20):
            done = subprocess.run(["mosquitto_sub", "-h", "localhost", "-p", port, "-t", "kept/#", "-C", "1", "-W", "3", *more],
                                  capture_output=True, text=True, timeout=PATIENCE)
            if done.stdout == "on\n":
                break
        else:
            raise Failed(f"kept/lamp is not retained at {node.tcp}: {done}")
    for name in ("aiomqtt-tcp-0", "paho-ws-0", "mqttjs-ws-0"):
        speakers[name].stop()
        speakers["paho-tcp-1"].find(f"^heard all/{name}/will lost$")


def requests_are_answered(nodes, folder, cafile):
    """mosquitto_rr at one node, and one who answers at the other (MQTT 5's response topic and correlation data)."""
    ports = [node.tcp.rsplit(":", 1)[1] for node in nodes]
    more = ["--cafile", str(cafile)] if cafile else []
    answerer = Process("answerer", ["mosquitto_sub", "-h", "localhost", "-p", ports[1], "-V", "mqttv5", "-t", "ask", "-F",
                                    "asked, to %R", "-q", "1", *more])
    try:
        for _ in range(PATIENCE):
            subprocess.run(["mosquitto_pub", "-h", "localhost", "-p", ports[1], "-t", "ask", "-m", "there?", *more], check=True,
                           timeout=PATIENCE)
            with answerer.more:
                if answerer.said:
                    break
            time.sleep(0.2)
        asker = Process("mosquitto_rr", ["mosquitto_rr", "-h", "localhost", "-p", ports[0], "-V", "mqttv5", "-t", "ask", "-e",
                                         "answers/one", "-m", "what?", "-q", "1", "-W", str(PATIENCE), *more])
        where = answerer.find("^asked, to (answers/.*)").group(1)
        subprocess.run(["mosquitto_pub", "-h", "localhost", "-p", ports[1], "-V", "mqttv5", "-t", where, "-m", "this", "-q",
                        "1", *more], check=True, timeout=PATIENCE)
        asker.find("^this$")
    finally:
        answerer.stop()


def rounds(folder):
    tls, cafile = certificates(folder)
    origin = serve(folder)
    yield "in the clear", [f"mqtt.origins={origin}"], None, origin
    yield "over TLS", tls, cafile, None


def main():
    before, folder = time.monotonic(), install()
    print(f"installed within {time.monotonic() - before:.0f} s", flush=True)
    for what, settings, cafile, origin in rounds(folder):
        before, speakers, everybody, nodes = time.monotonic(), {}, {}, []
        try:
            nodes.append(Node("first", [], settings))
            nodes.append(Node("second", [nodes[0].address], settings))
            peers(folder, nodes, cafile, origin, speakers)
            listeners(nodes, cafile, everybody)
            everybody.update(speakers)
            for client in speakers.values():
                client.find("^ready$")
            heard = everybody_hears_everybody(nodes, speakers, everybody)
            what_stays_and_what_is_lost(nodes, speakers, folder, cafile)
            requests_are_answered(nodes, folder, cafile)
            print(f"{what}: {len(everybody)} clients ({', '.join(sorted({re.sub(r'-[01]$', '', n) for n in everybody}))}) at two nodes, "
                  f"{heard} deliveries at QoS 1 and 2, none lost, within {time.monotonic() - before:.0f} s", flush=True)
        except Failed as why:
            print(f"FAILED {what}: {why}")
            for node in nodes:
                print(f"--- {node.node.name}\n" + "\n".join(node.node.said[-40:]))
            return 1
        finally:
            for process in [*{**everybody, **speakers}.values(), *(node.node for node in nodes)]:
                process.stop()
    if "SMIDGE_MQTT_DIR" not in os.environ:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
