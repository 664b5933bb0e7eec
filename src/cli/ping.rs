//! `smidge ping`: round-trip times to a peer, as a running node measures them, printed like ping(8).

use std::{
    fmt,
    time::{Duration, Instant},
};

use clap::Args;
use futures::{
    StreamExt,
    future::{Either, select},
};
use libp2p::{Multiaddr, PeerId, multiaddr::Protocol};
use serde_json::{Value, json};

use super::{
    Failure,
    api::{self, Api, ApiArgs, duration},
    exit, print, short_id,
    table::{millis, short},
};
use crate::{
    config::dialable,
    gateway::encode,
    runtime::{Signal, Signals},
};

/// Measures round-trip times from a running node to a peer.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    smidge ping 12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp -c 3\n  \
    smidge ping /ip4/10.0.0.7/udp/4001/quic-v1\n  \
    smidge ping /ip4/10.0.0.7/tcp/4001\n\n\
    The node connects first if it has to, and learns who is at an address; that connection stays.\n\
    Ctrl-C ends with the summary. Exit code 1 if no ping was answered.\n\n\
    --json: {\"peer\", \"address\", \"sent\", \"answered\", \"rtt_us\": {\"all\", \"min\", \"avg\", \"max\", \"mdev\"}}")]
pub(crate) struct PingArgs {
    /// The peer's id, or its end as tables print it, or an address, with or without /p2p/ID at its end
    #[arg(value_name = "PEER|ADDR", value_parser = pinged)]
    target: Pinged,
    /// How often
    #[arg(short, long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    count: u32,
    /// How long from one to the next, in seconds or with a unit
    #[arg(short, long, value_name = "S", default_value = "1", value_parser = duration)]
    interval: Duration,
    /// Print one JSON record at the end
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// What a ping carries (libp2p/specs ping/ping.md).
const BYTES: usize = 32;

/// What is pinged.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Pinged {
    Peer(PeerId),
    /// The beginning or the end of a peer id.
    Part(String),
    At(Multiaddr),
}

impl fmt::Display for Pinged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(peer) => peer.fmt(f),
            Self::Part(part) => part.fmt(f),
            Self::At(address) => address.fmt(f),
        }
    }
}

fn pinged(text: &str) -> Result<Pinged, String> {
    if let Ok(peer) = text.parse() {
        return Ok(Pinged::Peer(peer));
    }
    // An address that only names its peer: the node has to know where that is.
    if let Ok(addr) = text.parse::<Multiaddr>()
        && let (Some(Protocol::P2p(peer)), 1) = (addr.iter().next(), addr.iter().count())
    {
        return Ok(Pinged::Peer(peer));
    }
    if short_id::part(text).is_some() {
        return Ok(Pinged::Part(text.to_owned()));
    }
    if !text.contains(['/', ':', '.']) {
        return Err("this is neither a peer id nor an address".into());
    }
    dialable(text).map(Pinged::At).map_err(|why| format!("the address {why}"))
}

/// What came back so far, times in microseconds.
#[derive(Default)]
struct Times {
    peer: Option<String>,
    sent: u32,
    rtts: Vec<u64>,
}

pub(super) fn run(args: &PingArgs) -> Result<(), Failure> {
    api::ask(&args.api, "ping", async |mut api| {
        let mut signals = Signals::new().map_err(|e| Failure::new(exit::FAILED, "signals", e))?;
        let start = Instant::now();
        let peer = match &args.target {
            Pinged::Peer(peer) => Some(peer.to_string()),
            Pinged::Part(part) => Some(short_id::whole(&mut api, part).await?),
            Pinged::At(_) => None,
        };
        let mut times = Times { peer, ..Times::default() };
        if !args.json {
            let target = times.peer.clone().unwrap_or_else(|| args.target.to_string());
            print(&format!("PING {target}: {BYTES} bytes of data\n"))?;
        }
        let stopped = async { while signals.next().await == Some(Signal::Reload) {} };
        let pinging = pings(&mut api, args, &mut times);
        if let Either::Left((Err(failure), _)) =
            select(std::pin::pin!(pinging), std::pin::pin!(stopped)).await
        {
            return Err(failure);
        }
        print(&if args.json { times.json(args) } else { times.text(args, start.elapsed()) })?;
        if times.rtts.is_empty() {
            return Err(Failure::new(exit::FAILED, "ping", "no ping was answered")
                .hint("`smidge peers` tells who is connected, `smidge doctor` what is in the way"));
        }
        Ok(())
    })
}

async fn pings(api: &mut Api, args: &PingArgs, times: &mut Times) -> Result<(), Failure> {
    let runtime = api.runtime.clone();
    let mut due = Instant::now();
    for seq in 1..=args.count {
        runtime.sleep_until(due).await;
        due += args.interval;
        // Once the peer at an address is known, that peer is pinged, wherever else it may be.
        let target = times.peer.clone().unwrap_or_else(|| args.target.to_string());
        let path = format!("/v1/peers/{}/ping", encode(target.as_bytes()));
        times.sent = seq;
        let line = match api.call("GET", &path, b"", PATIENCE).await {
            Ok(body) => {
                let record: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (rtt, peer) = (record["rtt_us"].as_u64().unwrap_or_default(), &record["peer"]);
                times.rtts.push(rtt);
                times.peer = peer.as_str().map(str::to_owned).or(times.peer.take());
                let name = short(times.peer.as_deref().unwrap_or("?"), false);
                format!("{BYTES} bytes from {name}: seq={seq} time={} ms\n", millis(rtt))
            }
            Err(failure) if failure.code == exit::TIMED_OUT => {
                let why = failure.why.first().map(|(why, _)| why.as_str()).unwrap_or_default();
                format!("seq={seq}: {why}\n")
            }
            Err(failure) => return Err(failure),
        };
        if !args.json {
            print(&line)?;
        }
    }
    Ok(())
}

/// Lowest, mean, highest and standard deviation, as ping(8) reckons them.
fn summary(rtts: &[u64]) -> Option<[u64; 4]> {
    let (min, max) = (rtts.iter().min()?, rtts.iter().max()?);
    let count = rtts.len() as f64;
    let mean = rtts.iter().map(|rtt| *rtt as f64).sum::<f64>() / count;
    let variance = rtts.iter().map(|rtt| (*rtt as f64 - mean).powi(2)).sum::<f64>() / count;
    Some([*min, mean.round() as u64, *max, variance.sqrt().round() as u64])
}

/// How much of what was sent did not come back.
fn loss(sent: u32, answered: usize) -> String {
    let lost = f64::from(sent) - answered.min(sent as usize) as f64;
    let percent = if sent == 0 { 0.0 } else { 100.0 * lost / f64::from(sent) };
    // Whole numbers without a point, others with three digits in all.
    if percent.fract() == 0.0 { format!("{percent:.0}%") } else { format!("{percent:.1}%") }
}

impl Times {
    fn text(&self, args: &PingArgs, took: Duration) -> String {
        let (sent, answered) = (self.sent, self.rtts.len());
        let mut text = format!(
            "\n--- {} ping statistics ---\n{sent} packets transmitted, {answered} received, {} packet loss, time {}ms\n",
            args.target,
            loss(sent, answered),
            took.as_millis()
        );
        if let Some(all) = summary(&self.rtts) {
            text.push_str(&format!("rtt min/avg/max/mdev = {} ms\n", all.map(millis).join("/")));
        }
        text
    }

    fn json(&self, args: &PingArgs) -> String {
        let [min, avg, max, mdev] = summary(&self.rtts).map_or([None; 4], |all| all.map(Some));
        let address = match &args.target {
            Pinged::Peer(_) | Pinged::Part(_) => None,
            Pinged::At(address) => Some(address.to_string()),
        };
        let record = json!({
            "peer": self.peer,
            "address": address,
            "sent": self.sent,
            "answered": self.rtts.len(),
            "rtt_us": { "all": self.rtts, "min": min, "avg": avg, "max": max, "mdev": mdev },
        });
        format!("{record}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_pinged_is_an_id_or_an_address() {
        let id = PeerId::random();
        let bare: Multiaddr = "/ip4/10.0.0.1/udp/4001/quic-v1".parse().unwrap();
        let full = bare.clone().with(Protocol::P2p(id));
        for (text, expected) in [
            (id.to_string(), Pinged::Peer(id)),
            (format!("/p2p/{id}"), Pinged::Peer(id)),
            (bare.to_string(), Pinged::At(bare.clone())),
            (full.to_string(), Pinged::At(full)),
            ("10.0.0.1:4001".into(), Pinged::At(bare.clone())),
            ("10.0.0.1".into(), Pinged::At(bare)),
            ("/ip4/10.0.0.1/tcp/1".into(), Pinged::At("/ip4/10.0.0.1/tcp/1".parse().unwrap())),
        ] {
            assert_eq!(pinged(&text), Ok(expected), "{text}");
        }
        for text in
            ["nobody", "", "/ip4/10.0.0.1/tcp/0", "/ip4//udp/4001", "/dns4/bootstrap", "bootstrap:4001"]
        {
            assert!(pinged(text).is_err(), "{text}");
        }
    }

    #[test]
    fn figures_are_those_of_ping_8() {
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[7]), Some([7, 7, 7, 0]));
        assert_eq!(summary(&[100, 200, 300, 400]), Some([100, 250, 400, 112]));
        for (sent, answered, expected) in
            [(0, 0, "0%"), (4, 4, "0%"), (4, 0, "100%"), (4, 1, "75%"), (3, 2, "33.3%"), (1, 2, "0%")]
        {
            assert_eq!(loss(sent, answered), expected, "{answered} of {sent}");
        }
    }
}
