//! A datagram over loopback, with a time limit. `cargo run -p smidge-runtime --example udp`

#![allow(clippy::print_stdout, reason = "an example that says what it saw")]

use std::{
    error::Error,
    future::poll_fn,
    io::IoSliceMut,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use smidge_runtime::{Executor, RecvMeta, Transmit, UdpOptions};

fn main() -> Result<(), Box<dyn Error>> {
    Executor::default().block_on(1, |runtime| async move {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sender = runtime.bind_udp(any, UdpOptions::default())?;
        let receiver = runtime.bind_udp(any, UdpOptions::default())?;
        let destination = receiver.local_addr();
        sender.try_send(&Transmit {
            destination,
            ecn: None,
            contents: b"hello",
            segment_size: None,
            src_ip: None,
        })?;

        let (mut buffer, mut meta) = ([0; 2048], [RecvMeta::default()]);
        let receive = poll_fn(|cx| receiver.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta));
        runtime.timeout(Duration::from_secs(5), receive).await??;
        let text = String::from_utf8_lossy(&buffer[..meta[0].len]);
        println!("{} says {text:?} to {destination}", meta[0].addr);
        Ok(())
    })?
}
