//! Five nodes keep a record for each other: it outlives the node that wrote it. `cargo run --example records`

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use std::{num::NonZeroUsize, time::Duration};

use smidge::{
    Client, Config, Node, PutOptions, Quorum, identity::Identity, runtime::Executor, runtime::Handle,
};

/// A node that finds the others through the first one.
fn node(rt: &Handle, n: u16) -> Result<Client, Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.listen.addresses = vec![format!("/ip4/127.0.0.1/udp/{}/quic-v1", 4821 + n).parse()?];
    config.dial.names = if n == 0 { vec![] } else { vec!["127.0.0.1:4821".parse()?] };
    // Of the nodes there are, the three closest to a key keep its record.
    config.kad.replication = NonZeroUsize::new(3).ok_or("three is not zero")?;
    Ok(Node::new(config, Identity::ephemeral().keypair().clone()).spawn(rt)?)
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    Executor::default().block_on(1, |rt| async move {
        let nodes = (0..5).map(|n| node(&rt, n)).collect::<Result<Vec<_>, _>>()?;
        // Everybody's table has to know a few others before records can be placed.
        rt.timeout(Duration::from_secs(10), async {
            for node in &nodes {
                while node.status().await.is_ok_and(|status| status.table < 3) {
                    rt.sleep(Duration::from_millis(10)).await;
                }
            }
        })
        .await?;
        let (writer, readers) = nodes.split_first().ok_or("there are five")?;
        let options = PutOptions { quorum: Quorum::Majority, ..PutOptions::default() };
        let stored = writer.put("colour", "blue", options).await?;
        println!("stored: {stored:?}");
        writer.shutdown().await?;
        for reader in readers {
            let value = reader.get("colour", 1).await?;
            println!("{} reads {}", reader.peer_id(), String::from_utf8_lossy(&value));
        }
        for reader in readers {
            reader.shutdown().await?;
        }
        Ok(())
    })?
}
