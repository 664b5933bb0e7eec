//! `smidge ping`: round-trip times to a peer, as a running node measures them.

use std::time::{Duration, Instant};

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
    exit, print,
    table::{millis, short},
};
use crate::runtime::{Signal, Signals};

/// Measures round-trip times from a running node to a peer.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  smidge ping 12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp -c 3\n\n\
                        Exit code 75 if no ping was answered."
)]
pub(crate) struct PingArgs {
    /// The peer's id, or an address that ends with /p2p/ID
    #[arg(value_name = "PEER|ADDR", value_parser = peer)]
    peer: PeerId,
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

fn peer(text: &str) -> Result<PeerId, String> {
    if let Ok(peer) = text.parse() {
        return Ok(peer);
    }
    let addr: Multiaddr = text.parse().map_err(|_| "this is neither a peer id nor an address".to_owned())?;
    match addr.iter().last() {
        Some(Protocol::P2p(peer)) => Ok(peer),
        _ => Err("the address does not end with /p2p/ID".into()),
    }
}

/// Round-trip times in microseconds.
#[derive(Default)]
struct Times {
    sent: u32,
    rtts: Vec<u64>,
}

pub(super) fn run(args: &PingArgs) -> Result<(), Failure> {
    api::ask(&args.api, "ping", async |mut api| {
        let mut signals = Signals::new().map_err(|e| Failure::new(exit::FAILED, "signals", e))?;
        let start = Instant::now();
        let mut times = Times::default();
        if !args.json {
            print(&format!("PING {} through {}\n", args.peer, "the running node"))?;
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
            return Err(Failure::new(exit::TIMED_OUT, "ping", "no ping was answered")
                .hint("`smidge peers` tells who is connected"));
        }
        Ok(())
    })
}

async fn pings(api: &mut Api, args: &PingArgs, times: &mut Times) -> Result<(), Failure> {
    let path = format!("/v1/peers/{}/ping", args.peer);
    let name = short(&args.peer.to_string(), false);
    let runtime = api.runtime.clone();
    let mut due = Instant::now();
    for seq in 1..=args.count {
        runtime.sleep_until(due).await;
        due += args.interval;
        times.sent = seq;
        let line = match api.call("GET", &path, b"", PATIENCE).await {
            Ok(body) => {
                let record: Value = serde_json::from_slice(&body).unwrap_or_default();
                let rtt = record["rtt_us"].as_u64().unwrap_or_default();
                times.rtts.push(rtt);
                format!("answer from {name}: seq={seq} time={} ms\n", millis(rtt))
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

impl Times {
    /// Lowest, mean and highest, if there is any.
    fn summary(&self) -> Option<[u64; 3]> {
        let (min, max) = (self.rtts.iter().min()?, self.rtts.iter().max()?);
        let mean = self.rtts.iter().sum::<u64>() / self.rtts.len() as u64;
        Some([*min, mean, *max])
    }

    fn text(&self, args: &PingArgs, took: Duration) -> String {
        let (sent, answered) = (self.sent, self.rtts.len());
        let lost =
            (100 * (sent as usize - answered.min(sent as usize))).checked_div(sent as usize).unwrap_or(0);
        let mut text = format!(
            "--- {} ping statistics ---\n{sent} sent, {answered} answered, {lost}% lost, time {} ms\n",
            args.peer,
            took.as_millis()
        );
        if let Some([min, mean, max]) = self.summary() {
            text.push_str(&format!(
                "rtt min/avg/max = {}/{}/{} ms\n",
                millis(min),
                millis(mean),
                millis(max)
            ));
        }
        text
    }

    fn json(&self, args: &PingArgs) -> String {
        let [min, mean, max] = self.summary().map_or([None; 3], |all| all.map(Some));
        let record = json!({
            "peer": args.peer.to_string(),
            "sent": self.sent,
            "answered": self.rtts.len(),
            "rtt_us": { "all": self.rtts, "min": min, "avg": mean, "max": max },
        });
        format!("{record}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_an_id_or_stands_at_the_end_of_an_address() {
        let id = PeerId::random();
        assert_eq!(peer(&id.to_string()), Ok(id));
        assert_eq!(peer(&format!("/ip4/10.0.0.1/udp/4001/quic-v1/p2p/{id}")), Ok(id));
        assert!(peer("/ip4/10.0.0.1/udp/4001/quic-v1").is_err());
        assert!(peer("nobody").is_err());
    }
}
