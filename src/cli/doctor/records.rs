//! Who is behind each record: a QUIC handshake under a key of this moment, and at once goodbye.
//!
//! The nodes that are tried log a peer that came and went. Nothing else is asked of them.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint,
        transport::{DialOpts, PortUse},
    },
    identity::Keypair,
};

use super::{finding::Finding, names::Named};
use crate::{
    config::{Config, check_quic},
    error::chain,
    node::quic_config,
    runtime::Handle,
    transport::quic::Transport,
};

const CHECK: &str = "records.handshake";
/// Records of one name that are tried: what is wrong with more of them is wrong with these.
const TRIED: usize = 64;

/// What became of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Answered { peer: PeerId, rtt: Duration },
    Failed(String),
}

/// A record, whether it is an address of this host's own node, and what became of it.
#[derive(Clone, Debug)]
struct Tried {
    address: Multiaddr,
    here: bool,
    outcome: Outcome,
}

pub(super) async fn check(
    config: &Config,
    runtime: &Handle,
    names: Vec<Named>,
    here: &(dyn Fn(&Multiaddr) -> bool + Sync),
    me: Option<PeerId>,
) -> Vec<Finding> {
    let set_up =
        |why: String| vec![Finding::fail(CHECK, "QUIC", why, "mend the section [quic] of the configuration")];
    let mut transport = match quic_config(config, &Keypair::generate_ed25519()) {
        Ok(quic) => match Transport::new(quic, runtime.clone()) {
            Ok(transport) => transport,
            Err(e) => return set_up(chain(&e)),
        },
        Err(e) => return set_up(chain(&e)),
    };
    let mut findings = Vec::new();
    for Named { name, addresses } in names {
        let all = addresses.len();
        let dials = addresses.into_iter().take(TRIED).map(|address| {
            let dial =
                transport.dial(address.clone(), DialOpts { role: Endpoint::Dialer, port_use: PortUse::New });
            async move {
                let outcome = match dial {
                    Err(e) => Outcome::Failed(chain(&e)),
                    Ok(connecting) => match connecting.await {
                        // Dropped, it is closed.
                        Ok((peer, connection)) => Outcome::Answered { peer, rtt: connection.rtt() },
                        Err(e) => Outcome::Failed(chain(&e)),
                    },
                };
                (address, outcome)
            }
        });
        // Each is begun when there is room for it: the time limit of a handshake runs from then.
        let outcomes: Vec<_> = stream::iter(dials).buffered(config.dial.parallel).collect().await;
        let tried: Vec<_> = outcomes
            .into_iter()
            .map(|(address, outcome)| Tried { here: here(&address), address, outcome })
            .collect();
        findings.extend(judge(&name, &tried, all, me));
    }
    findings
}

fn judge(name: &str, tried: &[Tried], all: usize, me: Option<PeerId>) -> Vec<Finding> {
    let is_me = |peer: &PeerId| me == Some(*peer);
    let answered = tried.iter().any(|t| matches!(&t.outcome, Outcome::Answered { peer, .. } if !is_me(peer)));
    let mut seen: BTreeMap<(PeerId, bool), &Multiaddr> = BTreeMap::new();
    let mut findings: Vec<_> = tried
        .iter()
        .map(|Tried { address, here, outcome }| {
            let subject = address.to_string();
            match outcome {
                Outcome::Answered { peer, .. } if is_me(peer) => {
                    Finding::ok(CHECK, subject, "this node itself, which is running")
                }
                Outcome::Answered { peer, rtt } => {
                    // Both sides have reckoned with keys in it: a ping is faster.
                    let found = format!("{peer}, handshake round trip {:.1} ms", rtt.as_secs_f64() * 1000.0);
                    match seen.insert((*peer, family(address)), address) {
                        Some(other) => Finding::warn(
                            CHECK,
                            subject,
                            format!("{found}: the same peer as at {other}"),
                            "two nodes with one key? give each its own identity.key_file or identity.derive_name",
                        ),
                        None => Finding::ok(CHECK, subject, found),
                    }
                }
                Outcome::Failed(_) if *here => {
                    Finding::ok(CHECK, subject, "an address of this host's own node, which is not running")
                }
                Outcome::Failed(why) if answered => {
                    let advice = format!(
                        "other records of {name} answer: is this one of a node that is gone? Otherwise see that {} is \
                         let through",
                        port(address)
                    );
                    Finding::warn(CHECK, subject, why, advice)
                }
                Outcome::Failed(why) => {
                    let advice = format!(
                        "start a node there (smidge run), see that {} is let through, and that both are on one network",
                        port(address)
                    );
                    Finding::fail(CHECK, subject, why, advice)
                }
            }
        })
        .collect();
    if all > tried.len() {
        findings.push(Finding::ok(CHECK, name, format!("{} more records were not tried", all - tried.len())));
    }
    findings
}

/// Whether an address is of IPv6: a node may well have one of each family.
fn family(address: &Multiaddr) -> bool {
    check_quic(address).is_ok_and(|(socket, _)| socket.is_ipv6())
}

fn port(address: &Multiaddr) -> String {
    let socket = check_quic(address).map(|(socket, _): (SocketAddr, _)| socket);
    socket.map_or_else(|_| "UDP".into(), |socket| format!("UDP port {}", socket.port()))
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    fn tried(ip: &str, here: bool, peer: Option<PeerId>) -> Tried {
        let outcome = match peer {
            Some(peer) => Outcome::Answered { peer, rtt: Duration::from_micros(1234) },
            None => Outcome::Failed("nobody".into()),
        };
        let version = if ip.contains(':') { "ip6" } else { "ip4" };
        Tried { address: format!("/{version}/{ip}/udp/4001/quic-v1").parse().unwrap(), here, outcome }
    }

    #[test]
    fn one_answer_makes_silence_a_warning_and_none_makes_it_a_failure() {
        let (me, one, two) = (PeerId::random(), PeerId::random(), PeerId::random());
        use Verdict::{Fail, Ok, Warn};
        for (all, expected) in [
            (vec![tried("10.0.0.1", false, Some(one)), tried("10.0.0.2", false, Some(two))], vec![Ok, Ok]),
            (vec![tried("10.0.0.1", false, Some(one)), tried("10.0.0.2", false, None)], vec![Ok, Warn]),
            (vec![tried("10.0.0.1", false, None), tried("10.0.0.2", false, None)], vec![Fail, Fail]),
            // We are no proof that others can be reached.
            (vec![tried("10.0.0.1", true, Some(me)), tried("10.0.0.2", false, None)], vec![Ok, Fail]),
            (vec![tried("10.0.0.1", true, None)], vec![Ok]),
            (vec![tried("10.0.0.1", false, Some(one)), tried("10.0.0.2", false, Some(one))], vec![Ok, Warn]),
            (vec![tried("10.0.0.1", false, Some(one)), tried("fd00::1", false, Some(one))], vec![Ok, Ok]),
            (vec![], vec![]),
        ] {
            let verdicts: Vec<_> =
                judge("peer:4001", &all, all.len(), Some(me)).iter().map(|f| f.verdict).collect();
            assert_eq!(verdicts, expected, "{all:?}");
        }
    }

    #[test]
    fn who_answered_and_how_fast_is_said_and_what_was_left_out_too() {
        let one = PeerId::random();
        let findings = judge("peer:4001", &[tried("10.0.0.1", false, Some(one))], 70, None);
        assert_eq!(findings[0].found, format!("{one}, handshake round trip 1.2 ms"));
        assert_eq!(findings[1].found, "69 more records were not tried");
    }
}
