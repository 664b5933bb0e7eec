//! Streams of a connection that carry garbage, or nothing.

use std::{collections::VecDeque, io, sync::atomic::Ordering::Relaxed};

use futures::AsyncWriteExt;
use libp2p::core::muxing::SubstreamBox;
use smidge_bench::{link::Link, nodes::KAD};

use crate::{
    Count,
    wire::{ask_for, field, framed, line, message, varint},
    within,
};

/// Streams held open; then the oldest are reset to make room.
const HELD: usize = 240;

/// The hash table's protocol with all that a careless parser could trip over.
pub(crate) async fn junk(link: &Link, amount: u64, count: &Count) -> io::Result<()> {
    let mut rng = fastrand::Rng::with_seed(7);
    let mut held = VecDeque::new();
    while count.tried.load(Relaxed) < amount {
        let n = count.tried.fetch_add(1, Relaxed);
        let mut stream = within(link.open()).await?;
        within(ask_for(&mut stream, KAD.as_ref())).await?;
        let mut random = vec![0; rng.usize(..2000)];
        rng.fill(&mut random);
        let key: [u8; 32] = rng.u128(..).to_be_bytes().repeat(2).try_into().unwrap_or_default();
        let frame = match n % 7 {
            // No protobuf.
            0 => framed(&random),
            // Longer than anything may be.
            1 => [&varint(1 << 62)[..], &random].concat(),
            // A record that nobody asked for.
            2 => framed(&message(0, &key, &field(3, &[field(1, &key), field(2, &random)].concat()))),
            // A provider that is not us, at addresses that are none.
            3 => {
                let peer = [field(1, &random), field(2, &random), field(2, b"\x04\x7f\0\0\x01")].concat();
                framed(&message(2, &key, &field(9, &peer)))
            }
            // A question, again and again.
            4 => framed(&message(4, &key, &[])),
            // Less than was announced.
            5 => [&varint(4000)[..], &random].concat(),
            // A type that does not exist, and a key of nothing.
            _ => framed(&message(99, &[], &field(3, &[]))),
        };
        if within(stream.write_all(&frame)).await.is_ok() && stream.flush().await.is_ok() {
            count.succeeded.fetch_add(1, Relaxed);
        }
        held.push_back(stream);
        if held.len() > HELD / 4 {
            held.pop_front();
        }
    }
    Ok(())
}

/// Streams that are opened and never finished: without a word, within the negotiation, and after it.
pub(crate) async fn strain(link: &Link, amount: u64, count: &Count) -> io::Result<()> {
    let mut held: VecDeque<SubstreamBox> = VecDeque::new();
    while count.tried.load(Relaxed) < amount {
        let n = count.tried.fetch_add(1, Relaxed);
        let mut stream = match within(link.open()).await {
            Ok(stream) => stream,
            // The victim grants no more: make room.
            Err(e) if e.kind() == io::ErrorKind::TimedOut && !held.is_empty() => {
                held.drain(..held.len().div_ceil(4));
                continue;
            }
            Err(e) => return Err(e),
        };
        let said = match n % 4 {
            0 => within(stream.write_all(&[0x13])).await,
            1 => within(stream.write_all(&line("/multistream/1.0.0"))).await,
            2 => within(ask_for(&mut stream, "/no/such/protocol")).await,
            _ => within(ask_for(&mut stream, KAD.as_ref())).await,
        };
        if said.is_ok() && within(stream.flush()).await.is_ok() {
            count.succeeded.fetch_add(1, Relaxed);
        }
        held.push_back(stream);
        if held.len() > HELD {
            held.drain(..HELD / 4);
        }
    }
    Ok(())
}
