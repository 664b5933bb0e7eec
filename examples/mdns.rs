//! Two nodes that know nothing of each other meet on the local network. `cargo run --example mdns`
//!
//! Here on loopback, so that nobody else hears of it. Without `interfaces` they would be found, and would
//! find others, on every link of this machine.

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use std::time::Duration;

use futures::StreamExt;
use smidge::{
    Client, Config, Event, Node, PublishOptions,
    identity::Identity,
    mdns::Notice,
    runtime::{Executor, Handle},
};

/// Loopback's name on Linux, and elsewhere.
const LOOPBACK: &str = if cfg!(target_os = "linux") { "lo" } else { "lo0" };

fn node(rt: &Handle) -> Result<Client, Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.listen.addresses = vec!["/ip4/127.0.0.1/udp/0/quic-v1".parse()?];
    config.mdns.enabled = true;
    config.mdns.interfaces = vec![LOOPBACK.into()];
    Ok(Node::new(config, Identity::ephemeral().keypair().clone()).spawn(rt)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Executor::default().block_on(1, |rt| async move {
        let one = node(&rt)?;
        let mut seen = one.events();
        let two = node(&rt)?;
        let mut messages = two.subscribe("some_topic").await?;
        rt.timeout(Duration::from_secs(30), async {
            while let Some(event) = seen.next().await {
                match event {
                    Event::Mdns(Notice::Discovered { peer, address }) => {
                        println!("found {peer} at {address}");
                    }
                    Event::Mdns(Notice::Trouble { why, .. }) => println!("trouble: {why}"),
                    Event::Connected { peer, .. } if peer == two.peer_id() => break,
                    _ => {}
                }
            }
        })
        .await?;
        let receipt = one.publish("some_topic", "hello, whoever you are", PublishOptions::default()).await?;
        println!("handed to {} peers", receipt.peers);
        if let Some(message) = messages.next().await {
            println!("{:?} says {:?}", message.source, String::from_utf8_lossy(&message.data));
        }
        Ok(futures::try_join!(two.shutdown(), one.shutdown()).map(drop)?)
    })?
}
