//! Two nodes measure how far apart they are. `cargo run --example ping`
//!
//! By name instead of by address, `node` below would be told `"bootstrap:4001"`: every replica behind the
//! name is found, and found again when it moves.

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use std::time::Duration;

use smidge::{Client, Config, Node, identity::Identity, runtime::Executor, runtime::Handle};

fn node(rt: &Handle, listen: &str, dial: &[&str]) -> Result<Client, Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.listen.addresses = vec![listen.parse()?];
    config.dial.names = dial.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    Ok(Node::new(config, Identity::ephemeral().keypair().clone()).spawn(rt)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Executor::default().block_on(1, |rt| async move {
        let one = node(&rt, "/ip4/127.0.0.1/udp/4811/quic-v1", &[])?;
        let two = node(&rt, "/ip4/127.0.0.1/udp/0/quic-v1", &["127.0.0.1:4811"])?;
        // The dialer connects by itself, in the background: wait until it has.
        rt.timeout(Duration::from_secs(10), async {
            while two.peers().await.is_ok_and(|peers| peers.is_empty()) {
                rt.sleep(Duration::from_millis(10)).await;
            }
        })
        .await?;
        for n in 1..=3 {
            println!("ping {n} to {}: {:?}", one.peer_id(), two.ping(one.peer_id()).await?);
        }
        Ok(futures::try_join!(two.shutdown(), one.shutdown()).map(drop)?)
    })?
}
