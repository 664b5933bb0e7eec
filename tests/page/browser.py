"""The page at GET /, in a real Chromium, before a real mesh of three nodes.

    browser.py SMIDGE_BINARY [DIRECTORY_FOR_SCREENSHOTS]

Needs `chromium` and `chromedriver` (Debian: chromium, chromium-driver), npm, which brings axe-core in the version of
package-lock.json (rules of accessibility), and PyPI's prometheus-client, whose
strict reader of OpenMetrics looks at /metrics while there is a mesh to look at. Between the browser and the node stands a small proxy: it counts what is asked, and it can put
words into a peer's mouth that no honest peer would say. Waits for what is to happen, never for a guess of
how long it takes. Ends with 1 and says why if anything does not hold; leaves no process behind.
"""

import base64
import http.client
import http.server
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

BINARY = os.path.abspath(sys.argv[1])
SHOTS = sys.argv[2] if len(sys.argv) > 2 else None
PATIENCE = 60
# As hostile as a topic may be: markup, a prototype's name beside it, a right-to-left override.
HOSTILE = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>\u202e"
TOPICS = ["some_topic", "sensors/kitchen", HOSTILE, "__proto__"]
TOKEN = "0123456789abcdef-token"
AXE = ""
PORT = re.compile(r"listening on /ip4/127\.0\.0\.1/udp/(\d+)/quic-v1")


class Failed(Exception):
    """Something does not hold."""


def until(what, condition, patience=PATIENCE):
    """What `condition` gives once it gives something."""
    end, last = time.monotonic() + patience, None
    while time.monotonic() < end:
        try:
            last = condition()
            if last:
                return last
        except (OSError, KeyError, ValueError, IndexError, http.client.HTTPException) as error:
            last = error
        time.sleep(0.05)
    raise Failed(f"{what}: not within {patience} s ({last!r})")


class Node:
    """`smidge run` with an API on a free port of loopback."""

    def __init__(self, *args, topics=TOPICS, environment=None):
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        words = [BINARY, "run", "--set", "identity.ephemeral=true", "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]
        for topic in topics:
            words += ["--topic", topic]
        if not any(word.startswith("api.listen=") for word in args):
            words += ["--set", "api.listen=127.0.0.1:0"]
        self.process = subprocess.Popen([*words, *args], stdin=subprocess.DEVNULL, stderr=self.log,
                                        env={"SMIDGE__LIMITS__MEMORY": "4GiB", **(environment or {})})
        self.url = until("an API", lambda: self.find(r"api listening on (http://\S+)")).replace("0.0.0.0", "127.0.0.1")
        self.address = "127.0.0.1:" + until("a listener", lambda: self.find(PORT))
        self.peer = until("a peer id", lambda: self.find(r"peer id (\S+)"))

    def find(self, pattern):
        with open(self.log.name, encoding="utf-8", errors="replace") as log:
            found = re.search(pattern, log.read())
        return found and found.group(1)

    def api(self, path, body=None, token=None):
        request = urllib.request.Request(self.url + path, data=body)
        if token:
            request.add_header("Authorization", "Bearer " + token)
        with urllib.request.urlopen(request, timeout=15) as response:
            return json.load(response)

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before one node; `change(path, record)` may alter what the node says."""

    daemon_threads = True

    def __init__(self, node):
        self.node, self.asked, self.lock = node, [], threading.Lock()
        self.change = lambda path, record: record
        super().__init__(("127.0.0.1", 0), Passing)
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, address):
        """A browser may hang up whenever it likes."""


class Passing(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        with server.lock:
            server.asked.append(self.path)
        try:
            # The node is to hear of the page that asks as it would without the proxy between them.
            headers = {k: v.replace(server.url, server.node.url) for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            upstream = http.client.HTTPConnection(server.node.url.removeprefix("http://"), timeout=30)
            upstream.request(self.command, self.path, body=content or None, headers=headers)
            answer = upstream.getresponse()
        except OSError:
            self.close_connection = True
            return
        stream = answer.getheader("Content-Type", "").startswith("text/event-stream")
        body = b"" if stream else answer.read()
        if answer.getheader("Content-Type") == "application/json":
            body = json.dumps(server.change(self.path, json.loads(body))).encode()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("content-length", "connection"):
                self.send_header(name, value)
        if stream:
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            while chunk := answer.read1(65536):
                self.wfile.write(chunk)
                self.wfile.flush()
            return
        if answer.status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Browser:
    """A headless Chromium, driven through chromedriver (W3C WebDriver)."""

    def __init__(self, directory):
        driver, browser = shutil.which("chromedriver"), shutil.which("chromium")
        if not driver or not browser:
            raise Failed("chromium or chromedriver is missing: apt-get install chromium chromium-driver")
        self.process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.port = next(m.group(1) for line in self.process.stdout if (m := re.search(r"successfully on port (\d+)", line)))
        threading.Thread(target=self.process.stdout.read, daemon=True).start()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--disable-dev-shm-usage", f"--user-data-dir={directory}", "--window-size=1200,1000"]
        capabilities = {"browserName": "chrome", "goog:chromeOptions": {"binary": browser, "args": flags},
                        "goog:loggingPrefs": {"browser": "ALL"}}
        self.session = None
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
        self.session = "/session/" + session["sessionId"]

    def call(self, method, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", method=method,
                                         data=None if body is None else json.dumps(body).encode())
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise Failed(f"the browser's driver says: {error.read().decode()[:600]}") from error

    def open(self, url):
        self.call("POST", self.session + "/url", {"url": url})

    def run(self, script, *args):
        return self.call("POST", self.session + "/execute/sync", {"script": script, "args": list(args)})

    def text(self, selector):
        return self.run("const e = document.querySelector(arguments[0]); return e && !e.closest('[hidden]') ? e.innerText : ''", selector)

    def cdp(self, command, **params):
        return self.call("POST", self.session + "/goog/cdp/execute", {"cmd": command, "params": params})

    def complaints(self):
        """What stands in the console since the last time."""
        return [entry["message"] for entry in self.call("POST", self.session + "/se/log", {"type": "browser"})]

    def look(self, name, width, height, scheme):
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        wide = self.run("return [document.documentElement.scrollWidth, innerWidth]")
        hold(wide[0] <= wide[1], f"{name}: the page is {wide[0]} wide in a window of {wide[1]}")
        if SHOTS:
            size = self.cdp("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": width, "height": size["height"], "scale": 1}
            shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
            with open(os.path.join(SHOTS, name + ".png"), "wb") as file:
                file.write(base64.b64decode(shot["data"]))

    def stop(self):
        try:
            if self.session:
                self.call("DELETE", self.session)
        finally:
            self.process.terminate()
            self.process.wait(10)


def hold(true, what):
    if not true:
        raise Failed(what)


def mesh(nodes, started):
    """Three nodes that all know each other; the third looks for a name in vain, too."""
    first = Node("--set", "mqtt.listen=127.0.0.1:0")
    started.append(first)
    started.append(Node("--dial", first.address))
    started.append(Node("--dial", first.address, "--dial", started[1].address, "--dial", "127.0.0.1:9"))
    nodes.extend(started)
    for node in nodes:
        until("a whole mesh", lambda node=node: len(node.api("/v1/mesh")["topics"]["some_topic"]) == 2)
        until("round trips", lambda node=node: all(p["rtt_us"] for p in node.api("/v1/peers")["peers"]))


def the_page_shows_a_mesh(browser, nodes, proxy):
    third = nodes[2]
    browser.open(proxy.url + "/")
    until("the peer id", lambda: browser.text("#peer") == third.peer)
    until("live and ready", lambda: {"peer", "live", "ready"} <= set(browser.text("#badges").split()))
    for node in nodes[:2]:
        until("a peer's row", lambda node=node: browser.run(
            "return [...document.querySelectorAll('#peers tr')].some(r => r.cells[0].title === arguments[0] && r.cells[3].innerText === 'direct' && / ms$/.test(r.cells[5].innerText))", node.peer))
    # The name that nobody answers waits between two dials, and is `dialing` for a moment each time.
    for word in ("127.0.0.1:9", "connected", "waiting"):
        until(f"{word!r} among the names", lambda word=word: word in browser.text("#names"))
    edges = browser.run("return document.querySelectorAll('figure[data-key=some_topic] line.edge:not(.gossip)').length")
    hold(edges == 2, f"{edges} edges in the picture of some_topic")
    labels = browser.run("""return [...document.querySelectorAll('svg[role=img]')].every(s => s.getAttribute('aria-label'))
        && [...document.querySelectorAll('input,select')].every(i => i.labels.length)
        && document.documentElement.lang === 'en'""")
    hold(labels, "something has no label")


def mqtt_clients_are_listed_where_there_is_mqtt(browser, nodes):
    browser.open(nodes[2].url + "/")
    until("the peer id", lambda: browser.text("#peer") == nodes[2].peer)
    hold(browser.text("#mqtt-card") == "", "a node without MQTT lists its clients")
    place = until("MQTT", lambda: nodes[0].find(r"mqtt listening on mqtt://([0-9.:]+)"))
    host, port = place.split(":")
    # CONNECT of 3.1.1, with an id that is markup, and SUBSCRIBE to two filters.
    name = b"<b>hall</b>"
    body = b"\0\4MQTT\4\2\0\0" + len(name).to_bytes(2, "big") + name
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.sendall(b"\x10" + bytes([len(body)]) + body + b"\x82\x0a\0\1\0\1a\0\0\1b\0")
        hold(client.recv(4) == b"\x20\2\0\0", "no CONNACK")
        browser.open(nodes[0].url + "/")
        row = "return [...document.querySelectorAll('#mqtt tr')].map(r => [...r.cells].map(c => c.innerText))"
        until("a client's row", lambda: browser.run(row) == [["<b>hall</b>", "", "3.1.1", "2", "0"]])
        hold("1 session" in browser.text("#mqtt-totals"), browser.text("#mqtt-totals"))
    until("its end", lambda: "Nobody is connected" in browser.text("#mqtt-more"))


def what_is_published_is_seen_as_a_rate_and_as_messages(browser, nodes):
    browser.run("document.querySelector('#topic').value = 'some_topic'; document.querySelector('#follow').requestSubmit()")
    until("the stream", lambda: "waiting for messages" in browser.text("#following"))
    for n in range(20):
        nodes[0].api("/v1/topics/some_topic", f"message {n} <b>of many</b>".encode())
    nodes[0].api("/v1/topics/some_topic", b"\xff\x00")
    until("the messages", lambda: "21 messages" in browser.text("#following"))
    said = browser.text("#log")
    hold("2 bytes, no text" in said and "message 19 <b>of many</b>" in said, f"the log says {said!r}")
    until("a rate", lambda: browser.run("return document.querySelector('#rate-received path.spark').getAttribute('d').length > 3") and "21 messages received" in browser.text("#totals"))
    nodes[2].api("/v1/topics/some_topic", b"one of ours")
    until("a publish", lambda: "1 published" in browser.text("#totals"))


def a_message_is_published_from_the_page(browser, nodes):
    """To any topic, whether this node follows it or not; what is published here is followed here, too."""
    browser.run("document.querySelector('#topic').value = 'some_topic'; document.querySelector('#text').value = 'from the page'; document.querySelector('#say').requestSubmit()")
    until("a receipt", lambda: "handed to 2 peers and 1 subscriber here" in browser.text("#said"))
    until("the message", lambda: "this node" in browser.text("#log") and "from the page" in browser.text("#log"))
    browser.run("document.querySelector('#topic').value = 'nobody/is/there'; document.querySelector('#text').value = 'hello?'; document.querySelector('#say').requestSubmit()")
    until("a refusal", lambda: "not published: " in browser.text("#said"))
    hold(browser.run("return document.querySelector('#text').value") == "hello?", "what was not published is gone")
    said = browser.complaints()
    hold(all("nobody%2Fis%2Fthere" in line for line in said), f"the console says {said}")
    browser.run("document.querySelector('#topic').value = 'some_topic'; document.querySelector('#text').value = ''")


def minutes_of_traffic_are_there_when_the_page_is_opened(browser, proxy):
    """They come from the node: a page that was not there has them, with a scale, for each topic, too."""
    browser.call("POST", browser.session + "/refresh", {})
    until("a chart", lambda: browser.run("return document.querySelector('#rate-received path.spark')?.getAttribute('d')?.length > 3"))
    hold("max 2.10/s" in browser.text("#rate-received .scale") and "10 min" in browser.text("#rate-received .scale"), "a chart has no scale")
    until("a topic's chart", lambda: "/s in" in browser.text("figure[data-key=some_topic] figcaption"))


NARROW, WIDE = 390, 1200


def many_peers_are_readable(browser, proxy, count):
    """Made up, as many as that, on a screen and on a phone: no label on another, rows that are folded, no rule broken."""
    made = [f"12D3KooW{n:044d}" for n in range(count)]

    def crowd(path, record):
        if path == "/v1/peers":
            one = record["peers"][0]
            record["peers"] += [{**one, "peer": peer, "name": f"kitchen-{n}" if n % 2 else None, "topics": ["some_topic"]}
                                for n, peer in enumerate(made[len(record["peers"]):])]
        if path == "/v1/mesh":
            record["topics"]["some_topic"] += made[2:8]
        return record
    proxy.change = crowd
    until(f"{count} peers", lambda: browser.run("return document.querySelectorAll('#peers tr').length") == count)
    for name, width in (("wide", WIDE), ("phone", NARROW)):
        for scheme in ("light", "dark"):
            browser.look(f"{count}-{name}-{scheme}", width, 1000, scheme)
            axe(browser, f"{count} peers, {name}, {scheme}")
        overlap = browser.run("""const boxes = [...document.querySelectorAll('figure[data-key=some_topic] text')].map(t => t.getBoundingClientRect());
            return boxes.flatMap((a, i) => boxes.slice(i + 1).map(b => [a, b])).filter(([a, b]) => a.left + .5 < b.right && b.left + .5 < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom).length""")
        hold(overlap == 0, f"{overlap} labels of {count} peers are on others, {name}")
    height = browser.run("return document.querySelector('#peers').getBoundingClientRect().height")
    hold(height <= 48 * count, f"the folded table of {count} peers is {height} px high")
    browser.run("document.querySelector('#peers .fold').click()")
    hold(browser.run("return document.querySelector('#peers tr').classList.contains('open') && document.querySelector('#peers td:nth-child(2)').getBoundingClientRect().height > 0"), "a row does not unfold")
    browser.run("document.querySelector('#peers .fold').click()")
    browser.look("back", WIDE, 1000, "light")
    proxy.change = lambda path, record: record
    until("the peers that are", lambda: browser.run("return document.querySelectorAll('#peers tr').length") == 2)


def axe(browser, what):
    """No rule of axe-core is broken; what a page of one machine's own cannot have is left out."""
    # The page's own policy lets no script in: it is put there by the driver, which needs no policy.
    found = browser.call("POST", browser.session + "/execute/async", {"script": AXE + """
        ;axe.run(document, { resultTypes: ['violations'] }).then(r => arguments[0](r.violations.map(v => v.id + ': ' + v.help + ' ' + v.nodes[0].html.slice(0, 200))), e => arguments[0](['axe: ' + e]));""", "args": []})
    hold(not found, f"{what}: {found}")


def axe_core(directory):
    """The source of axe-core, as npm brings it."""
    if not shutil.which("npm"):
        raise Failed("npm is missing: apt-get install npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(os.path.join(os.path.dirname(os.path.abspath(__file__)), name), directory)
    subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"], cwd=directory, check=True, timeout=120, stdout=subprocess.DEVNULL)
    with open(os.path.join(directory, "node_modules/axe-core/axe.min.js"), encoding="utf-8") as file:
        return file.read()


def meshes_are_followed_as_they_change(browser, nodes, proxy):
    """A peer that the mesh lacks is shown apart; one that comes and goes, comes and goes."""
    gossiper = nodes[0].peer

    def without(path, record):
        if path == "/v1/mesh":
            record["topics"]["some_topic"] = [p for p in record["topics"]["some_topic"] if p != gossiper]
        return record
    proxy.change = without
    count = "return document.querySelectorAll('figure[data-key=some_topic] line.edge.gossip').length"
    until("a gossip-only peer", lambda: browser.run(count) == 1)
    browser.look("gossip", 1200, 900, "light")
    proxy.change = lambda path, record: record
    until("the whole mesh again", lambda: browser.run(count) == 0)


def hostile_words_stay_words(browser, nodes, proxy):
    def lie(path, record):
        if path == "/v1/peers":
            for peer in record["peers"]:
                peer["agent"] = HOSTILE
                for link in peer["connections"]:
                    link["relayed"] = True
        if path == "/v1/names":
            record["names"][0]["last_error"] = HOSTILE
            record["names"].append({"name": HOSTILE, "records": [], "last_error": HOSTILE})
        return record
    proxy.change = lie
    until("a hostile agent", lambda: "<script>" in browser.text("#peers"))
    until("a relay", lambda: "relayed" in browser.text("#peers"))
    until("a hostile name", lambda: "<script>" in browser.text("#names"))
    until("a hostile topic", lambda: any("<img" in t for t in browser.run("return [...document.querySelectorAll('figure h3')].map(h => h.innerText)")))
    drawn = browser.run("return [...document.querySelectorAll('figure h3')].map(h => h.title)")
    hold(sorted(drawn) == sorted(TOPICS), f"the topics drawn are {drawn}")
    browser.run("document.querySelector('#topic').value = arguments[0]; document.querySelector('#follow').requestSubmit()", HOSTILE)
    until("the stream", lambda: "waiting for messages" in browser.text("#following"))
    nodes[0].api("/v1/topics/" + urllib.request.quote(HOSTILE, safe=""), HOSTILE.encode())
    until("a hostile message", lambda: "<script>" in browser.text("#log"))
    made = browser.run("return document.querySelectorAll('main img, main script, main b ~ img, main a').length")
    hold(made == 0, f"{made} elements were made of words")
    hold("pwned" not in browser.run("return document.title"), "a script of a peer has run")
    browser.run("document.querySelector('#go').click()")
    proxy.change = lambda path, record: record


def a_strict_reader_takes_the_metrics(nodes):
    try:
        from prometheus_client.openmetrics.parser import text_string_to_metric_families
    except ImportError as error:
        raise Failed("prometheus-client is missing: pip install prometheus-client") from error
    with urllib.request.urlopen(nodes[2].url + "/metrics", timeout=15) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    hold(len(families) > 40, f"{len(families)} families of metrics")


def a_hidden_tab_asks_nothing(browser, proxy):
    def seen(hidden):
        browser.run("Object.defineProperty(document, 'hidden', {get: () => arguments[0], configurable: true}); document.dispatchEvent(new Event('visibilitychange'))".replace("arguments[0]", str(hidden).lower()))
    seen(True)
    with proxy.lock:
        before = len(proxy.asked)
    # Two rounds' time in which nothing may happen: here a pause is what is tested.
    time.sleep(4.5)
    with proxy.lock:
        since = proxy.asked[before:]
    hold(not since, f"a hidden tab asked {since}")
    seen(False)
    until("questions", lambda: len(proxy.asked) > before)


def a_second_visit_is_not_sent_the_page_again(browser, proxy):
    first = urllib.request.urlopen(proxy.url + "/", timeout=10)
    request = urllib.request.Request(proxy.url + "/", headers={"If-None-Match": first.headers["ETag"]})
    try:
        urllib.request.urlopen(request, timeout=10)
        raise Failed("the page was sent twice")
    except urllib.error.HTTPError as error:
        hold(error.code == 304, f"status {error.code}")


def a_node_that_stops_is_said_to_have_stopped(browser, nodes, complaints):
    nodes[2].stop()
    said = until("the news", lambda: browser.text("#alert"))
    hold("does not answer any more" in said and "old" in said, f"the page says {said!r}")
    hold(browser.text("#badges") == "no answer", browser.text("#badges"))
    hold(browser.run("return document.title") == "no answer · smidge", "the title")
    browser.look("stopped", 1200, 1000, "light")
    # Now, and only now, the console may say that nobody answers.
    complaints.extend(c for c in browser.complaints() if "Failed to load resource" not in c)


def a_token_is_asked_for_and_kept_in_the_tab_only(browser, started):
    locked = Node("--set", "api.listen=0.0.0.0:0", environment={"SMIDGE__API__TOKEN": TOKEN})
    started.append(locked)
    page = urllib.request.urlopen(locked.url + "/", timeout=10).read().decode()
    hold(locked.peer not in page, "the page gives the node away")
    browser.open(locked.url + "/")
    until("the question", lambda: "token" in browser.text("#login"))
    hold(browser.text("#peer") == "" and browser.text("#main") == "", "something is shown without the token")
    hold(browser.run("return document.activeElement.id") == "token", "the field has not the focus")
    browser.look("token", 1200, 500, "light")
    enter = "document.querySelector('#token').value = arguments[0]; document.querySelector('#login').requestSubmit()"
    browser.run(enter, "wrong")
    until("a refusal", lambda: "not the token" in browser.text("#alert"))
    browser.run(enter, TOKEN)
    until("the node", lambda: browser.text("#peer") == locked.peer)
    hold(browser.text("#login") == "" and browser.text("#alert") == "", "the question is still there")
    kept = browser.run("return [sessionStorage.length, localStorage.length, document.cookie, location.href]")
    hold(kept == [1, 0, "", locked.url + "/"], f"kept: {kept}")
    browser.call("POST", browser.session + "/refresh", {})
    until("the node after a reload", lambda: browser.text("#peer") == locked.peer)
    foreign = [c for c in browser.complaints() if "401" not in c]
    hold(not foreign, f"the console says {foreign}")


def main():
    global AXE
    started, nodes, browser = [], [], None
    with tempfile.TemporaryDirectory() as directory:
        try:
            AXE = axe_core(directory)
            mesh(nodes, started)
            proxy = Proxy(nodes[2])
            browser = Browser(directory)
            complaints = []
            mqtt_clients_are_listed_where_there_is_mqtt(browser, nodes)
            the_page_shows_a_mesh(browser, nodes, proxy)
            what_is_published_is_seen_as_a_rate_and_as_messages(browser, nodes)
            a_message_is_published_from_the_page(browser, nodes)
            minutes_of_traffic_are_there_when_the_page_is_opened(browser, proxy)
            for name, width, scheme in (("light", WIDE, "light"), ("dark", WIDE, "dark"), ("phone", NARROW, "light")):
                browser.look(name, width, 1000, scheme)
                axe(browser, name)
            browser.look("wide", WIDE, 1000, "light")
            for count in (15, 60):
                many_peers_are_readable(browser, proxy, count)
            meshes_are_followed_as_they_change(browser, nodes, proxy)
            hostile_words_stay_words(browser, nodes, proxy)
            browser.look("hostile", 375, 1000, "dark")
            a_strict_reader_takes_the_metrics(nodes)
            a_hidden_tab_asks_nothing(browser, proxy)
            a_second_visit_is_not_sent_the_page_again(browser, proxy)
            complaints = browser.complaints()
            hold(not complaints, f"the console says {complaints}")
            a_node_that_stops_is_said_to_have_stopped(browser, nodes, complaints)
            hold(not complaints, f"the console says {complaints}")
            a_token_is_asked_for_and_kept_in_the_tab_only(browser, started)
        finally:
            if browser:
                browser.stop()
            for node in started:
                node.stop()
    print("the page holds: mesh, rates, minutes of history, messages both ways, 15 and 60 peers, axe's rules, hostile words, a hidden tab, a stopped node, a token")


if __name__ == "__main__":
    try:
        main()
    except Failed as why:
        raise SystemExit(f"FAILED: {why}")
