#!/usr/bin/env python3
"""Name servers as they are: dnsmasq, unbound, BIND and aardvark-dns (podman's), asked by a node and by its doctor.

    tests/dns/run.py                     all of them
    tests/dns/run.py dnsmasq unbound     these

Each server runs in a network namespace of its own with the inputs that were found to break things. Needs root, unshare,
ip and mount; servers that are missing are installed from Debian's packages. Prints what held and `N passed, M failed`, and
fails if anything did not.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
INSIDE = "SMIDGE_DNS_INSIDE"
# Longer than anything here takes, unless it hangs.
PATIENCE = 60
AARDVARK = "/usr/lib/podman/aardvark-dns"
# Each server, its program and the package that has it.
PACKAGES = {
    "dnsmasq": ("dnsmasq", "dnsmasq-base"),
    "unbound": ("unbound", "unbound"),
    "bind": ("named", "bind9"),
    "aardvark": (AARDVARK, "aardvark-dns"),
}
QUIET = ["--set=identity.ephemeral=true", "--set=api.listen=off", "--set=dns.timeout=1s", "--set=dns.attempts=2",
         "--listen=/ip4/127.0.0.9/udp/4001/quic-v1"]


class Late(Exception):
    """What was waited for did not come."""


def until(what, poll):
    """Waits for something true of `poll`."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := poll():
            return found
        time.sleep(0.05)
    raise Late(f"waited {PATIENCE} s: {what}")


class Server:
    """A name server's process; it ends with the block."""

    def __init__(self, *command, ready=("127.0.0.1",), pid_file=None):
        self.command, self.ready = [str(word) for word in command], ready
        # Where one that goes on in the background says who it is.
        self.pid_file = pid_file

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(f"{self.command[0]} listens", self.listens)
        return self

    def listens(self):
        if self.process.poll() is not None and not (self.pid_file and self.process.returncode == 0):
            raise Late(f"{self.command[0]} ended with {self.process.returncode}: {self.process.stderr.read()}")
        listening = subprocess.run(["ss", "-Hlun", "sport", "=", ":53"], capture_output=True, text=True, check=True).stdout
        return all(ip in listening for ip in self.ready)

    def __exit__(self, *_):
        if self.pid_file:
            with open(self.pid_file, encoding="utf-8") as file:
                pid = int(file.read())
            os.kill(pid, signal.SIGKILL)
            until(f"{self.command[0]} ends", lambda: not self.listens())
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Node:
    """A node that dials, and what it logs."""

    def __init__(self, binary, *args):
        command = [binary, "run", *QUIET, "--set=log.level=debug", *args]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.lines = []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line.rstrip())

    def line(self, *parts, after=0):
        """The first line with all `parts` behind `after` lines, waited for."""

        def said():
            return next((line for line in list(self.lines[after:]) if all(part in line for part in parts)), None)

        try:
            return until(f"a line with {parts}", said)
        except Late as late:
            raise Late(f"{late}; said:\n" + "\n".join(self.lines[-15:])) from late

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Bench:
    """Where servers are tried, and what held."""

    def __init__(self, binary, directory):
        self.binary, self.directory = binary, directory
        self.passed, self.failed = 0, []
        self.resolv_conf = self.write("resolv.conf", "")
        for path, at in [(self.resolv_conf, "/etc/resolv.conf"), (self.write("hosts", ""), "/etc/hosts")]:
            subprocess.run(["mount", "--bind", path, at], check=True)

    def write(self, name, content):
        path = os.path.join(self.directory, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(content)
        return path

    def ask(self, content):
        """Makes this the system's resolv.conf."""
        self.write("resolv.conf", content)

    def check(self, what, held, seen=""):
        print(f"{'ok  ' if held else 'FAIL'}  {what}{'' if held else f': {seen}'}", flush=True)
        if held:
            self.passed += 1
        else:
            self.failed.append(what)

    def doctor(self, *names):
        """The doctor's findings: a list of each check's."""
        dial = [f"--dial={name}" for name in names]
        run = subprocess.run([self.binary, "doctor", *QUIET, "--json", *dial], capture_output=True, text=True,
                             timeout=PATIENCE * 3, check=False)
        if not run.stdout:
            raise Late(f"the doctor said nothing: {run.stderr}")
        found = {}
        for finding in json.loads(run.stdout)["checks"]:
            found.setdefault(finding["check"], []).append(finding)
        return found

    def name(self, name):
        """What the doctor says of one name."""
        return self.doctor(name)["names.resolves"][0]

    def resolves(self, what, name, count, verdict="ok"):
        finding = self.name(name)
        records = f"{count} record" + ("" if count == 1 else "s")
        held = finding["verdict"] == verdict and finding["found"].startswith(records)
        self.check(f"{what}: {records}", held, finding)

    def node(self, *args):
        return Node(self.binary, *args)


def dnsmasq(bench, *args, at="127.0.0.1"):
    return Server("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--bind-interfaces",
                  "--user=root", "--pid-file=", f"--listen-address={at}", *args, ready=[at])


def try_dnsmasq(bench):
    bench.ask("nameserver 127.0.0.1\n")
    with dnsmasq(bench, "--host-record=peer.mesh,10.0.0.1"):
        bench.resolves("AAAA refused beside an A record", "peer.mesh:4001", 1)
    for count in (30, 200):
        with dnsmasq(bench, *[f"--host-record=peer.mesh,10.0.{n // 250}.{n % 250 + 1}" for n in range(count)]):
            bench.resolves("A records", "peer.mesh:4001", count)
    for domain, answer in [((), "REFUSED"), (("--local=/mesh/",), "no such name")]:
        with bench.node("--dial=peer.mesh:4001", "--set=dial.stale=4s", "--set=dial.refresh=500ms") as node:
            with dnsmasq(bench, *domain, "--host-record=peer.mesh,10.0.0.1"):
                node.line("resolved peer.mesh:4001 to 1 records")
                said = len(node.lines)
            with dnsmasq(bench, *domain):
                line = node.line("peer.mesh:4001 is not resolved", answer, after=said)
                bench.check(f"a name that lost its last record, {'with' if domain else 'without'} local=: {answer}", True)
                if not domain:
                    bench.check("the hint names local=/DOMAIN/", "local=/DOMAIN/" in line, line)
                    node.line("let go of 1 records of peer.mesh:4001")
                    bench.check("its records are let go after dial.stale", True)
                said = len(node.lines)
            with dnsmasq(bench, *domain, "--host-record=peer.mesh,10.0.0.1"):
                node.line("INFO", "resolved peer.mesh:4001 to 1 records", after=said)
                bench.check("and it is said when it is back", True)
    with dnsmasq(bench, "--address=/mesh/1.2.3.4", "--host-record=peer.mesh,10.0.0.1"):
        finding = bench.name("peer.mesh:4001")
        held = finding["verdict"] == "ok" and "virtual" not in finding["found"] and "each task" not in finding["found"]
        bench.check("a wildcard is no virtual IP", held, finding)
    subprocess.run(["ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1"], check=True)
    for link in ("v0", "v1"):
        subprocess.run(["ip", "link", "set", link, "up"], check=True)

    def link_local():
        shown = subprocess.run(["ip", "-j", "-6", "addr", "show", "dev", "v0"], capture_output=True, text=True, check=True)
        infos = [info for link in json.loads(shown.stdout) for info in link.get("addr_info", []) if not info.get("tentative")]
        return next((info["local"] for info in infos if info["scope"] == "link"), None)

    ip = until("v0 has a link-local address", link_local)
    with Server("dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--bind-dynamic", "--user=root",
                "--pid-file=", "--interface=v0", "--host-record=peer.mesh,10.0.0.1", ready=[ip]):
        for lines in ([f"{ip}%v0"], ["fe80::1%wlan9", f"{ip}%v0"], [f"{ip}%v0", "fe80::1%wlan9"]):
            bench.ask("".join(f"nameserver {line}\n" for line in lines))
            bench.resolves(f"nameserver {' and '.join(line.replace(ip, 'fe80::…') for line in lines)}", "peer.mesh:4001", 1)
        servers = bench.doctor("peer.mesh:4001")["dns.server"]
        held = [server["verdict"] for server in servers] == ["ok"] and servers[0]["subject"].startswith("[fe80")
        bench.check("the doctor asks the link-local server", held, servers)
    with dnsmasq(bench, "--host-record=peer.mesh,10.0.0.1"):
        for lines in (["0.0.0.0"], ["::ffff:127.0.0.1"], ["127.0.0.1:53", "localhost", "127.0.0.1"]):
            bench.ask("".join(f"nameserver {line}\n" for line in lines))
            bench.resolves(f"nameserver {', '.join(lines)}", "peer.mesh:4001", 1)
        bench.ask("\ufeffnameserver 127.0.0.1\n")
        bench.resolves("a byte order mark", "peer.mesh:4001", 1)
        for line in ("127.0.0.1:53", "[::1]", "localhost"):
            bench.ask(f"nameserver {line}\n")
            finding = bench.doctor("peer.mesh:4001")["dns.resolv_conf"][0]
            held = finding["verdict"] == "fail" and f"nameserver {line}" in finding["found"]
            bench.check(f"only `nameserver {line}` is said to be none", held, finding)


def try_unbound(bench):
    bench.ask("nameserver 127.0.0.1\n")
    records = [f'local-data: "six.mesh. A 10.0.0.{n}"\nlocal-data: "six.mesh. AAAA fd00::{n}"' for n in range(1, 4)]
    records += [f'local-data: "many.mesh. A 10.0.{n // 250}.{n % 250 + 1}"' for n in range(200)]
    records += ['local-data: "text.mesh. TXT x"', 'local-zone: "refused.example." refuse',
                'local-zone: "silent." deny', 'local-data: "alias.mesh. CNAME there.refused.example."']
    conf = bench.write("unbound.conf", "server:\n" + "\n".join([
        "interface: 127.0.0.1", "access-control: 127.0.0.0/8 allow", 'chroot: ""', 'username: ""', 'pidfile: ""',
        f'directory: "{bench.directory}"', "use-syslog: no", 'logfile: ""', "do-ip6: no", 'module-config: "iterator"',
        'local-zone: "mesh." static', 'local-zone: "test." static', *records]) + "\nremote-control:\n control-enable: no\n")
    with Server("unbound", "-d", "-p", "-c", conf):
        bench.resolves("three of each family", "six.mesh:4001", 6)
        bench.resolves("200 records, TC without records, then TCP", "many.mesh:4001", 200)
        for name, words in [("gone.mesh", "no such name"), ("text.mesh", "no addresses under this name"),
                            ("refused.example", "REFUSED")]:
            finding = bench.name(f"{name}:4001")
            bench.check(f"{name}: {words}", finding["verdict"] == "fail" and words in finding["found"], finding)
        bench.ask("nameserver 127.0.0.1\nsearch silent\noptions ndots:3\n")
        finding = bench.name("six.mesh:4001")
        held = finding["found"].startswith("6 records") and "no answer" in finding["found"]
        bench.check("the bare name behind a silent search domain is found, and the silence said", held, finding)
        bench.ask("nameserver 127.0.0.1\nsearch silent mesh\n")
        finding = bench.name("six:4001")
        held = finding["verdict"] == "warn" and finding["found"].startswith("6 records")
        bench.check("the search domain behind a silent one is found", held, finding)
        bench.ask("nameserver 127.0.0.1\n")
        found = bench.doctor("peer.silent:4001")
        words = "silent for peer.silent, and answers for other names"
        server, name = found["dns.server"][0], found["names.resolves"][0]
        bench.check("silence for one name is told from silence for all", words in server["found"], server)
        bench.check("and nobody is sent to the firewall", "let through" not in name["found"], name)


def try_bind(bench):
    bench.ask("nameserver 127.0.0.1\n")
    zone = ["$TTL 60", "@ SOA ns admin 1 60 60 60 60", "@ NS ns", "ns A 127.0.0.1", "alias CNAME there.elsewhere.example.",
            "text TXT x", *[f"many A 10.0.0.{n + 1}" for n in range(100)], *[f"six AAAA fd00::{n}" for n in range(1, 4)]]
    bench.write("mesh.zone", "\n".join(zone) + "\n")
    conf = bench.write("named.conf", f'''
options {{ directory "{bench.directory}"; listen-on {{ 127.0.0.1; }}; listen-on-v6 {{ none; }}; recursion no;
           pid-file none; session-keyfile none; empty-zones-enable no; dnssec-validation no; }};
controls {{ }};
zone "mesh" {{ type primary; file "mesh.zone"; }};
''')
    with Server("named", "-f", "-c", conf):
        bench.resolves("the most records of a name that it serves", "many.mesh:4001", 100)
        bench.resolves("only AAAA", "six.mesh:4001", 3)
        for name, words in [("gone.mesh", "no such name"), ("text.mesh", "no addresses under this name"),
                            ("elsewhere.example", "REFUSED"), ("alias.mesh", "alias of there.elsewhere.example")]:
            finding = bench.name(f"{name}:4001")
            bench.check(f"{name}: {words}", finding["verdict"] == "fail" and words in finding["found"], finding)


def try_aardvark(bench):
    # It answers only for whom it knows: who asks here has the server's own address.
    subprocess.run(["ip", "addr", "add", "10.89.0.1/32", "dev", "lo"], check=True)
    bench.ask("nameserver 10.89.0.1\n")
    for count in (1, 30, 74, 75, 100, 250):
        config = os.path.join(bench.directory, f"aardvark-{count}")
        os.mkdir(config)
        replicas = [f"{n:064x} 10.89.{n // 250}.{n % 250 + 2}  peer" for n in range(count)]
        asker = f"{'f' * 64} 10.89.0.1  asker"
        with open(os.path.join(config, "podman"), "w", encoding="utf-8") as file:
            file.write("\n".join(["10.89.0.1", *replicas, asker]) + "\n")
        with Server(AARDVARK, "--config", config, "--port", 53, "run", ready=["10.89.0.1"],
                    pid_file=os.path.join(config, "aardvark.pid")):
            bench.resolves("replicas behind one alias", "peer:4001", count)


TRIES = {"dnsmasq": try_dnsmasq, "unbound": try_unbound, "bind": try_bind, "aardvark": try_aardvark}


def install(servers):
    missing = [PACKAGES[server][1] for server in servers if not shutil.which(PACKAGES[server][0], path=PATH)]
    if missing:
        print(f"installing {', '.join(missing)}", flush=True)
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *missing]):
            subprocess.run(["apt-get", *command], env=env, check=True, stdout=subprocess.DEVNULL, timeout=600)


PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("server", nargs="*", choices=[*TRIES, []], help="default: all of them")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/debug/smidge"))
    args = parser.parse_args()
    servers = args.server or list(TRIES)
    if not os.access(args.binary, os.X_OK):
        parser.error(f"{args.binary} is not there: cargo build, or --binary")
    if not os.environ.get(INSIDE):
        install(servers)
        os.environ[INSIDE], os.environ["PATH"] = "1", PATH
        # Each server has a host of its own.
        ended = [subprocess.run(["unshare", "--mount", "--net", "--", sys.executable, __file__, "--binary", args.binary, server],
                                check=False, stdout=subprocess.PIPE, text=True) for server in servers]
        passed = failed = 0
        for server, run in zip(servers, ended):
            lines = run.stdout.splitlines()
            print("\n".join([server, *[f"  {line}" for line in lines[:-1]]]))
            counts = lines[-1].split() if lines else []
            whole = len(counts) == 4 and counts[1] == "passed,"
            passed += int(counts[0]) if whole else 0
            failed += int(counts[2]) if whole else 1
        print(f"{passed} passed, {failed} failed")
        return 1 if failed else 0
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        bench = Bench(args.binary, directory)
        for server in servers:
            try:
                TRIES[server](bench)
            except (Late, OSError, subprocess.SubprocessError) as error:
                bench.check(server, False, error)
    print(f"{bench.passed} passed, {len(bench.failed)} failed")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
