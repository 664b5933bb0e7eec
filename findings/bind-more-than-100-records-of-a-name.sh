#!/usr/bin/env bash
# BIND 9.18.49 (Debian 12) takes at most 100 records of one name and type unless told otherwise
# (max-records-per-type). One record more does not cost that record, nor that name: the whole zone is not loaded, and
# every other name in it is SERVFAIL. A service of 101 replicas behind one name takes its neighbours down.
set -euo pipefail
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$work"' EXIT
chmod 755 "$work" && cd "$work"

mkdir -p debs/partial
apt-get -o Debug::NoLocking=1 -o APT::Sandbox::User=root install -qq -y --no-install-recommends --download-only -o Dir::Cache::archives="$work/debs" \
    bind9=1:9.18.49-1~deb12u3 >/dev/null
for deb in debs/*.deb; do dpkg -x "$deb" root; done
python3 -m pip install -q --root-user-action ignore --target py dnspython==2.7.0
LD_LIBRARY_PATH="$work/root/usr/lib/$(uname -m)-linux-gnu:$work/root/lib/$(uname -m)-linux-gnu"
export LD_LIBRARY_PATH
root/usr/sbin/named -v

cat >ask.py <<'PY'
import sys, time
import dns.exception, dns.message, dns.query, dns.rcode
def ask(name):
    for _ in range(100):
        try:
            answer = dns.query.tcp(dns.message.make_query(name, "A"), "127.0.0.1", port=int(sys.argv[1]), timeout=2)
        except (OSError, EOFError, dns.exception.Timeout):
            time.sleep(0.1)
            continue
        count = sum(len(records) for records in answer.answer)
        return f"{name} {dns.rcode.to_text(answer.rcode())} {count}"
    sys.exit("no answer")
print(", ".join(map(ask, ("many.zone.example", "other.zone.example"))))
PY
try() { # PORT RECORDS
    mkdir -p "$2"
    {
        echo "\$TTL 5"
        printf '@ SOA ns.zone.example. root.zone.example. 1 60 60 60 5\n@ NS ns\nns A 192.0.2.1\nother A 192.0.2.2\n'
        for n in $(seq "$2"); do echo "many A 198.51.$((100 + n / 250)).$((n % 250 + 1))"; done
    } >"$2/zone"
    cat >"$2/conf" <<CONF
options { directory "$work/$2"; pid-file "$work/$2/pid"; session-keyfile "$work/$2/session"; recursion no;
  listen-on port $1 { 127.0.0.1; }; listen-on-v6 { none; }; dnssec-validation no; };
controls { };
zone "zone.example" { type primary; file "$work/$2/zone"; };
CONF
    root/usr/sbin/named -g -c "$2/conf" >"$2/log" 2>&1 &
    server=$!
    PYTHONPATH=py python3 ask.py "$1"
    kill "$server"
    wait "$server" 2>/dev/null || true
    server=
}
at=$(try 15363 100) above=$(try 15364 101)
echo "100 records: $at"
echo "101 records: $above"
[ "$at" = "many.zone.example NOERROR 100, other.zone.example NOERROR 1" ]
[ "$above" = "many.zone.example SERVFAIL 0, other.zone.example SERVFAIL 0" ]
grep -h 'too many records' 101/log | head -n 1 | cut -d' ' -f3-
echo "as found"
