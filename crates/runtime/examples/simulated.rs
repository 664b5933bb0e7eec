//! A minute on a link that loses half of what it carries, in no time.
//! `cargo run -p smidge-runtime --example simulated --features sim`

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use std::{error::Error, time::Duration};

use smidge_runtime::{
    Transmit, UdpOptions,
    sim::{Link, World},
};

fn main() -> Result<(), Box<dyn Error>> {
    let world = World::new(7, Link { loss: 0.5, latency: Duration::from_millis(20), ..Link::default() });
    let [sender, receiver] = ["10.0.0.1", "10.0.0.2"].map(|address| world.host(&[address]).handle());
    let destination = "10.0.0.2:9".parse()?;
    let _bound = receiver.bind_udp(destination, UdpOptions::default())?;
    let socket = sender.bind_udp("10.0.0.1:9".parse()?, UdpOptions::default())?;
    world.block_on(Duration::from_secs(120), async {
        for _ in 0..60 {
            let contents = b"hello";
            socket.try_send(&Transmit {
                destination,
                ecn: None,
                contents,
                segment_size: None,
                src_ip: None,
            })?;
            sender.sleep(Duration::from_secs(1)).await;
        }
        Ok::<(), std::io::Error>(())
    })?;
    println!("{} of 60 datagrams arrived in {:?} of simulated time", world.delivered(), world.elapsed());
    Ok(())
}
