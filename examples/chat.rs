//! A chat of three that does not pass on what it does not understand. `cargo run --example chat`
//!
//! The validator stands in front of delivery *and* forwarding: what one node rejects goes no further
//! through it, and whoever sent it loses score.

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use std::time::Duration;

use futures::StreamExt;
use smidge::{
    Client, Config, Message, Node, PublishOptions, Verdict, identity::Identity, runtime::Executor,
    runtime::Handle,
};

/// A line of chat is text, and not endless.
fn polite(message: &Message) -> Verdict {
    match std::str::from_utf8(&message.data) {
        Ok(line) if line.len() <= 80 && !line.contains('\n') => Verdict::Accept,
        _ => Verdict::Reject,
    }
}

fn node(rt: &Handle, n: u16) -> Result<Client, Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.listen.addresses = vec![format!("/ip4/127.0.0.1/udp/{}/quic-v1", 4831 + n).parse()?];
    config.dial.names =
        (0..n).map(|other| format!("127.0.0.1:{}", 4831 + other).parse()).collect::<Result<_, _>>()?;
    let node = Node::new(config, Identity::ephemeral().keypair().clone());
    Ok(node.validator(polite).spawn(rt)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Executor::default().block_on(1, |rt| async move {
        let nodes = (0..3).map(|n| node(&rt, n)).collect::<Result<Vec<_>, _>>()?;
        let mut chats = Vec::new();
        for node in &nodes {
            // Without its own lines, which it has on the screen.
            chats.push(node.subscribe("chat").await?.no_local());
        }
        // A publish can wait for those who should hear it.
        let all = PublishOptions {
            wait_peers: Some(2),
            timeout: Duration::from_secs(10),
            ..PublishOptions::default()
        };
        for (n, line) in ["hello", "two\nlines", "how are you?"].into_iter().enumerate() {
            let receipt = nodes[n].publish("chat", line, all).await?;
            println!("{n} says {line:?}, handed to {} peers", receipt.peers);
        }
        // The first node hears the third one, and never the second: nobody delivers two lines.
        if let Some(message) = chats[0].next().await {
            println!("0 hears {:?}", String::from_utf8_lossy(&message.data));
        }
        for node in nodes {
            node.shutdown().await?;
        }
        Ok(())
    })?
}
