//! Who asks, by what a browser says of the page and of the host: pure.

use std::net::IpAddr;

/// Whether a URL without a path, as `Origin` has it, is `host`.
pub(crate) fn is_origin(origin: &str, host: &str) -> bool {
    let of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    of.is_some_and(|of| of.eq_ignore_ascii_case(host))
}

/// Whether a host is this machine, by an address of loopback or by its reserved name (RFC 6761): no name server can
/// change those. 0.0.0.0 is none: it leads here, too, but browsers take it for an address outside of this machine, and
/// do not say which page asks.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    };
    let address = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    let is_loopback = |address: IpAddr| address.to_canonical().is_loopback();
    address.parse().is_ok_and(is_loopback) || name.eq_ignore_ascii_case("localhost")
}
