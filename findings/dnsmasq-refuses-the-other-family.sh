#!/usr/bin/env bash
# dnsmasq 2.90 (Debian 12) that has no upstream server REFUSES the AAAA question for a name whose A record it
# just answered from its own data, instead of answering NOERROR without records. A client that takes any REFUSED
# for "this name is not served here" loses a name that exists. `local=/DOMAIN/` turns the answer into
# NOERROR; it still comes without an SOA, so that nothing says for how long the absence may be cached.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
chmod 755 "$work" && cd "$work"

mkdir debs && (cd debs && apt-get -o APT::Sandbox::User=root download -qq dnsmasq-base=2.90-4~deb12u2 libnetfilter-conntrack3 libnfnetlink0 \
    libidn2-0 libunistring2 libdbus-1-3 libnftables1 libnftnl11 libmnl0 libjansson4 libxtables12 libnettle8 \
    libhogweed6 libgmp10 2>/dev/null)
for deb in debs/*.deb; do dpkg -x "$deb" root; done
python3 -m pip install -q --root-user-action ignore --target py dnspython==2.7.0
libraries="$work/root/usr/lib/$(uname -m)-linux-gnu:$work/root/lib/$(uname -m)-linux-gnu"
version=$(LD_LIBRARY_PATH="$libraries" root/usr/sbin/dnsmasq --version)
echo "${version%%$'\n'*}"

cat >ask.py <<'PY'
import sys, time
import dns.message, dns.query, dns.rcode
port = int(sys.argv[1])
def ask(kind):
    for _ in range(50):
        try:
            answer = dns.query.udp(dns.message.make_query("web.site.example", kind), "127.0.0.1", port=port, timeout=1)
            break
        except (OSError, dns.exception.Timeout):
            time.sleep(0.1)
    else:
        sys.exit("no answer")
    soa = "with" if answer.authority else "without"
    return f"{kind}: {dns.rcode.to_text(answer.rcode())}, {len(answer.answer)} record sets, {soa} SOA"
print("; ".join(ask(kind) for kind in ("A", "AAAA")))
PY
try() { # PORT OPTION…
    local port=$1
    shift
    LD_LIBRARY_PATH="$libraries" root/usr/sbin/dnsmasq --conf-file=/dev/null --no-daemon --no-resolv --no-hosts \
        --listen-address=127.0.0.1 --bind-interfaces --port="$port" --user=root \
        --pid-file="$work/pid" --host-record=web.site.example,192.0.2.7 "$@" >log 2>&1 &
    server=$!
    PYTHONPATH=py python3 ask.py "$port"
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
}
bare=$(try 15353)
local=$(try 15354 --local=/site.example/)
echo "no upstream:               $bare"
echo "and local=/site.example/:  $local"
[ "$bare" = "A: NOERROR, 1 record sets, without SOA; AAAA: REFUSED, 0 record sets, without SOA" ]
[ "$local" = "A: NOERROR, 1 record sets, without SOA; AAAA: NOERROR, 0 record sets, without SOA" ]
echo "as found"
