//! Two nodes on a private mesh, and one that stays outside. `cargo run --example private`

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use std::time::Duration;

use futures::StreamExt;
use smidge::{
    Client, Config, Event, Node,
    dialer::Notice,
    identity::Identity,
    runtime::{Executor, Handle},
    transport::admission::{Keyring, NetworkKey},
};

fn node(
    rt: &Handle,
    port: u16,
    dial: &[&str],
    key: &NetworkKey,
) -> Result<Client, Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.listen.addresses = vec![format!("/ip4/127.0.0.1/udp/{port}/quic-v1").parse()?];
    config.dial.names = dial.iter().map(|name| name.parse()).collect::<Result<_, _>>()?;
    let node = Node::new(config, Identity::ephemeral().keypair().clone());
    // From a file instead: `Keyring::read(path)`, or `network.key_file` in the configuration.
    Ok(node.network(Keyring::new(key.clone())).spawn(rt)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Executor::default().block_on(1, |rt| async move {
        let (key, another) = (NetworkKey::generate()?, NetworkKey::generate()?);
        println!("the network's key is {}, the stranger's {}", key.fingerprint(), another.fingerprint());
        let one = node(&rt, 4841, &[], &key)?;
        let mut at_one = one.events();
        let two = node(&rt, 0, &["127.0.0.1:4841"], &key)?;
        let stranger = node(&rt, 0, &["127.0.0.1:4841"], &another)?;
        let mut outside = stranger.events();

        rt.timeout(Duration::from_secs(10), async {
            while let Some(event) = at_one.next().await {
                if let Event::Connected { peer, .. } = event {
                    println!(
                        "inside: {peer}, which is {}",
                        if peer == two.peer_id() { "two" } else { "wrong" }
                    );
                    break;
                }
            }
            while let Some(event) = outside.next().await {
                if let Event::Dialer(Notice::DialFailed { reason, .. }) = event {
                    println!("outside: {reason}");
                    break;
                }
            }
        })
        .await?;
        Ok(futures::try_join!(two.shutdown(), stranger.shutdown(), one.shutdown()).map(drop)?)
    })?
}
