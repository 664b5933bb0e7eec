//! Answers of name servers, questions to ours, and the system's files.

#![allow(clippy::unwrap_used, reason = "a broken promise is a panic")]

use std::{io::IoSliceMut, time::Duration};

use futures::{FutureExt, future::poll_fn};

use super::{Config, Family, hosts::Hosts, resolv_conf::ResolvConf, resolver, server};
use crate::runtime::{
    Handle, RecvMeta, Transmit, UdpOptions,
    sim::{Link, World},
};

const SERVER: &str = "10.0.0.2:53";

/// A name server that answers each question with the question's id and `bytes`, the question itself
/// before them if `echo`.
async fn serve(rt: Handle, bytes: Vec<u8>, echo: bool) {
    let socket = rt.bind_udp(SERVER.parse().unwrap(), UdpOptions::default()).unwrap();
    let mut buf = [0; 2048];
    loop {
        let mut meta = [RecvMeta::default()];
        if poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta)).await.is_err() {
            return;
        }
        let question = &buf[..meta[0].len];
        let answer = match echo {
            // The id, then a head and sections of the fuzzer's own.
            false => [&question[..question.len().min(2)], &bytes].concat(),
            // A head that says that an answer follows the question, which is as it was.
            true => {
                let counts = bytes.first_chunk::<6>().copied().unwrap_or([0, 1, 0, 0, 0, 0]);
                let section = &question[question.len().min(12)..];
                [&question[..2], &[0x81, 0x80, 0, 1], &counts, section, bytes.get(6..).unwrap_or(&[])]
                    .concat()
            }
        };
        let transmit = Transmit {
            destination: meta[0].addr,
            ecn: None,
            contents: &answer,
            segment_size: None,
            src_ip: None,
        };
        let _ = socket.try_send(&transmit);
    }
}

/// The first byte selects what reads the others: the resolver (as a whole answer, or as its sections), our name
/// server, or the readers of `/etc/hosts` and `resolv.conf`. A lookup ends, whatever comes.
pub fn packet(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    match kind % 4 {
        kind @ 0..=1 => {
            let world = World::new(1, Link::default());
            let [client, server] = [world.host(&["10.0.0.1"]), world.host(&["10.0.0.2"])];
            server.handle().spawn(serve(server.handle(), bytes.to_vec(), kind == 1).boxed());
            let config = Config {
                servers: vec![SERVER.parse().unwrap()],
                search: Some(Vec::new()),
                attempts: 1,
                timeout: Duration::from_millis(200),
                hosts: "/nonexistent".into(),
                resolv_conf: "/nonexistent".into(),
                ..Config::default()
            };
            // async-dns asks the system's servers alone, so that there is nothing to be tried with it.
            let Ok(resolver) = resolver(config, client.handle()) else { return world.end() };
            let asked = async {
                let (addresses, texts) =
                    futures::join!(resolver.settled("peer", Family::Any), resolver.texts("_dnsaddr.peer"));
                if let Ok(found) = addresses {
                    assert!(!found.addresses.is_empty() && found.open.is_none_or(|open| open.why.is_some()));
                }
                if let Ok(texts) = texts {
                    assert!(!texts.is_empty());
                }
            };
            world.block_on(Duration::from_secs(60), asked);
            world.end();
        }
        2 => server::fuzz::question(bytes),
        _ => {
            let hosts = Hosts::parse(bytes);
            let _ = hosts.addresses("peer", Family::Any);
            let _ = ResolvConf::parse(bytes);
        }
    }
}
