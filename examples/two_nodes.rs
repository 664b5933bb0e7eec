//! Two nodes in one process: one says hello, the other hears it. `cargo run --example two_nodes`

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use futures::StreamExt;
use smidge::{Config, Node, PublishOptions, identity::Identity, runtime::Executor};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Executor::default().block_on(1, |runtime| async move {
        let node = |listen: &str, dial: &[&str]| -> Result<_, Box<dyn std::error::Error>> {
            let mut config = Config::default();
            config.listen.addresses = vec![listen.parse()?];
            config.dial.names = dial.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
            Ok(Node::new(config, Identity::ephemeral().keypair().clone()).spawn(&runtime)?)
        };
        let listener = node("/ip4/127.0.0.1/udp/4801/quic-v1", &[])?;
        let mut messages = listener.subscribe("greetings").await?;

        let speaker = node("/ip4/127.0.0.1/udp/0/quic-v1", &["127.0.0.1:4801"])?;
        let receipt = speaker.publish("greetings", "hello", PublishOptions::default()).await?;
        if let Some(message) = messages.next().await {
            let text = String::from_utf8_lossy(&message.data).into_owned();
            println!("{text}, handed to {} peers, from {:?}", receipt.peers, message.source);
        }
        Ok(futures::try_join!(speaker.shutdown(), listener.shutdown()).map(drop)?)
    })?
}
