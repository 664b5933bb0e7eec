//! Which peer is behind each record: a handshake with an ephemeral key, closed right afterwards.
//!
//! The nodes that are tried log a peer that came and went. Nothing else is asked of them.

use std::{collections::BTreeMap, time::Duration};

use futures::{
    StreamExt,
    future::{BoxFuture, FutureExt, ready},
    stream,
};
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
    config::{Config, TransportKind},
    error::chain,
    node::{quic_config, tcp_config},
    runtime::Handle,
    transport::{quic, tcp},
};

const CHECK: &str = "records.handshake";
/// Records of one name that are tried: what is wrong with more of them is wrong with these.
const TRIED: usize = 64;

/// What became of a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// Only QUIC measures how long that took.
    Answered {
        peer: PeerId,
        rtt: Option<Duration>,
    },
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
    let mut transports = match Transports::new(config, runtime) {
        Ok(transports) => transports,
        Err(why) => return vec![why],
    };
    let mut findings = Vec::new();
    for Named { name, addresses } in names {
        let all = addresses.len();
        let dials = addresses.into_iter().take(TRIED).map(|address| {
            let dial = transports.dial(&address);
            async move { (address, dial.await.unwrap_or_else(Outcome::Failed)) }
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

/// Both, under one ephemeral key.
struct Transports {
    quic: quic::Transport,
    tcp: tcp::Transport,
}

impl Transports {
    fn new(config: &Config, runtime: &Handle) -> Result<Self, Finding> {
        let key = Keypair::generate_ed25519();
        let quic = quic_config(config, &key).map_err(|e| chain(&e)).and_then(|quic| {
            let transport = quic::Transport::new(quic, runtime.clone());
            transport.map_err(|e| chain(&e))
        });
        let tcp = tcp_config(config, &key).map_err(|e| chain(&e)).and_then(|tcp| {
            let transport = tcp::Transport::new(tcp, runtime.clone());
            transport.map_err(|e| chain(&e))
        });
        let set_up = |kind: &'static str, why| {
            let advice = format!("mend the section [{}] of the configuration", kind.to_lowercase());
            Finding::fail(CHECK, kind, why, advice)
        };
        Ok(Self {
            quic: quic.map_err(|why| set_up("QUIC", why))?,
            tcp: tcp.map_err(|why| set_up("TCP", why))?,
        })
    }

    /// Dials, and closes the connection as soon as the peer is known. An error is a text.
    fn dial(&mut self, address: &Multiaddr) -> BoxFuture<'static, Result<Outcome, String>> {
        let opts = DialOpts { role: Endpoint::Dialer, port_use: PortUse::New };
        // A connection that is dropped is closed.
        match TransportKind::of(address) {
            Some(TransportKind::Tcp) => match self.tcp.dial(address.clone(), opts) {
                Ok(dial) => async {
                    let (peer, _) = dial.await.map_err(|e| chain(&e))?;
                    Ok(Outcome::Answered { peer, rtt: None })
                }
                .boxed(),
                Err(e) => ready(Err(chain(&e))).boxed(),
            },
            Some(TransportKind::Quic) | None => match self.quic.dial(address.clone(), opts) {
                Ok(dial) => async {
                    let (peer, connection) = dial.await.map_err(|e| chain(&e))?;
                    Ok(Outcome::Answered { peer, rtt: Some(connection.rtt()) })
                }
                .boxed(),
                Err(e) => ready(Err(chain(&e))).boxed(),
            },
        }
    }
}

fn judge(name: &str, tried: &[Tried], all: usize, me: Option<PeerId>) -> Vec<Finding> {
    let is_me = |peer: &PeerId| me == Some(*peer);
    let answered = tried.iter().any(|t| matches!(&t.outcome, Outcome::Answered { peer, .. } if !is_me(peer)));
    let mut seen: BTreeMap<(PeerId, Option<Way>), &Multiaddr> = BTreeMap::new();
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
                    let took =
                        rtt.map(|rtt| format!(", handshake round trip {:.1} ms", rtt.as_secs_f64() * 1000.0));
                    let found = format!("{peer}{}", took.unwrap_or_default());
                    match seen.insert((*peer, way(address)), address) {
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

/// The transport and whether it is over IPv6: a node may well have an address for each.
type Way = (TransportKind, bool);

fn way(address: &Multiaddr) -> Option<Way> {
    TransportKind::and_socket(address).map(|(kind, socket)| (kind, socket.is_ipv6()))
}

fn port(address: &Multiaddr) -> String {
    match TransportKind::and_socket(address) {
        Some((TransportKind::Quic, socket)) => format!("UDP port {}", socket.port()),
        Some((TransportKind::Tcp, socket)) => format!("TCP port {}", socket.port()),
        None => "UDP".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    fn tried(ip: &str, here: bool, peer: Option<PeerId>) -> Tried {
        let outcome = match peer {
            Some(peer) => Outcome::Answered { peer, rtt: Some(Duration::from_micros(1234)) },
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

    #[test]
    fn one_peer_may_answer_over_both_transports_and_a_port_that_does_not_is_named() {
        let one = PeerId::random();
        let quic = tried("10.0.0.1", false, None);
        let answered = Outcome::Answered { peer: one, rtt: None };
        let tcp =
            Tried { address: "/ip4/10.0.0.1/tcp/4001".parse().unwrap(), here: false, outcome: answered };
        let findings = judge("peer:4001", &[quic, tcp.clone()], 2, None);
        assert_eq!((findings[0].verdict, findings[1].verdict), (Verdict::Warn, Verdict::Ok));
        assert!(findings[0].advice.as_ref().unwrap().contains("UDP port 4001"));
        assert_eq!(findings[1].found, one.to_string());
        let both = judge("peer:4001", &[tried("10.0.0.1", false, Some(one)), tcp.clone()], 2, None);
        assert!(both.iter().all(|f| f.verdict == Verdict::Ok), "{both:?}");
        let silent = Tried { outcome: Outcome::Failed("nobody".into()), ..tcp };
        let advice = judge("peer:4001", &[silent], 1, None).remove(0).advice.unwrap();
        assert!(advice.contains("TCP port 4001"), "{advice}");
    }
}
