//! Load for a broker, of MQTT 3.1.1, and figures: `cargo run --release -p smidge-mqtt --example load ADDRESS[,ADDRESS…] [QOS
//! [MESSAGES [SUBSCRIBERS [WINDOW [BYTES [PID…]]]]]]`.
//!
//! `load latency ADDRESS[,ADDRESS…] [RATE [MESSAGES [QOS]]]` says how long one message of 100 bytes takes, at so many a second:
//! half of them at most (p50), and 99 of 100 (p99).
//!
//! One client publishes at the first address, subscribers are at the others by turns, or at the same one. At QoS 1, WINDOW messages are
//! on their way. Prints messages delivered a second, all subscribers together, what was lost, and the CPU time that the
//! processes PID spent on each. It reads and writes in large pieces, and keeps no message: it is not what is measured.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "an example")]

use std::{
    fs, io,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{AsyncReadExt, AsyncWriteExt, FutureExt, future::join_all};
use smidge_runtime::{Executor, Handle, TcpOptions, TcpStream};

const TOPIC: &[u8] = b"load/test";

async fn connect(runtime: &Handle, address: SocketAddr, id: &str) -> io::Result<Box<dyn TcpStream>> {
    let mut stream = runtime.connect_tcp(address, TcpOptions::default()).await?;
    let mut connect = b"\x10\x00\x00\x04MQTT\x04\x02\x00\x00\x00".to_vec();
    connect.push(id.len() as u8);
    connect.extend(id.as_bytes());
    connect[1] = connect.len() as u8 - 2;
    stream.write_all(&connect).await?;
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).await?;
    assert_eq!(connack, [0x20, 2, 0, 0], "not connected");
    Ok(stream)
}

/// A PUBLISH packet; its packet id, at QoS 1, is two bytes from `payload` on back.
fn packet(qos: u8, payload: usize, pid: u16) -> Vec<u8> {
    let length = 2 + TOPIC.len() + usize::from(qos > 0) * 2 + payload;
    let mut out = vec![0x30 | qos << 1];
    let mut rest = length;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend((TOPIC.len() as u16).to_be_bytes());
    out.extend(TOPIC);
    if qos > 0 {
        out.extend(pid.to_be_bytes());
    }
    out.resize(out.len() + payload, b'x');
    out
}

/// Calls `each` with the first byte and the body of each whole packet, and keeps the rest.
fn packets(bytes: &mut Vec<u8>, mut each: impl FnMut(u8, &[u8])) {
    let mut at = 0;
    while let Some(head) = bytes.get(at..).filter(|rest| rest.len() >= 2) {
        let (mut length, mut n) = (0, 1);
        while let Some(byte) = head.get(n) {
            length |= usize::from(byte & 0x7f) << (7 * (n - 1));
            n += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let Some(body) = head.get(n..n + length) else { break };
        each(head[0], body);
        at += n + length;
    }
    bytes.drain(..at);
}

/// Counts what comes, and acknowledges it.
async fn subscribe(mut stream: Box<dyn TcpStream>, heard: Arc<AtomicU64>) -> io::Result<()> {
    let (mut kept, mut buffer, mut acks) = (Vec::new(), vec![0; 256 << 10], Vec::new());
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        kept.extend_from_slice(&buffer[..n]);
        let mut count = 0;
        packets(&mut kept, |first, body| {
            if first & 0xf0 == 0x30 {
                count += 1;
                if first & 6 != 0 {
                    acks.extend([0x40, 2, body[2 + TOPIC.len()], body[3 + TOPIC.len()]]);
                }
            }
        });
        heard.fetch_add(count, Ordering::Relaxed);
        if !acks.is_empty() {
            stream.write_all(&acks).await?;
            acks.clear();
        }
    }
}

async fn publish(
    mut stream: Box<dyn TcpStream>,
    qos: u8,
    count: u64,
    window: u64,
    payload: usize,
) -> io::Result<()> {
    if qos == 0 {
        let one = packet(0, payload, 0);
        let batch = (64 << 10) / one.len() as u64;
        let many = one.repeat(batch as usize);
        let mut left = count;
        while left > 0 {
            let now = left.min(batch);
            stream.write_all(&many[..one.len() * now as usize]).await?;
            left -= now;
        }
        // Closed before it is read, what is on its way would be lost.
        stream.write_all(&[0xc0, 0]).await?;
        let mut pong = [0; 2];
        return stream.read_exact(&mut pong).await;
    }
    let (mut sent, mut acknowledged, mut kept, mut buffer) = (0_u64, 0_u64, Vec::new(), vec![0; 64 << 10]);
    while acknowledged < count {
        let mut out = Vec::new();
        while sent < count && sent - acknowledged < window {
            sent += 1;
            out.extend(packet(1, payload, (sent % 65_535 + 1) as u16));
        }
        stream.write_all(&out).await?;
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        kept.extend_from_slice(&buffer[..n]);
        packets(&mut kept, |first, _| acknowledged += u64::from(first == 0x40));
    }
    Ok(())
}

/// What each message took, in microseconds: it has in it when it was sent, from one clock.
async fn time(
    mut stream: Box<dyn TcpStream>,
    begun: Instant,
    took: Arc<Mutex<Vec<u64>>>,
    acks: bool,
) -> io::Result<()> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    let at = 2 + TOPIC.len() + if acks { 2 } else { 0 };
    loop {
        let n = stream.read(&mut buffer).await?;
        if n == 0 {
            return Ok(());
        }
        kept.extend_from_slice(&buffer[..n]);
        let (now, mut out) = (begun.elapsed().as_micros() as u64, Vec::new());
        packets(&mut kept, |first, body| {
            if first & 0xf0 == 0x30 {
                let sent = u64::from_be_bytes(body[at..at + 8].try_into().unwrap());
                took.lock().unwrap().push(now - sent);
                if acks {
                    out.extend([0x40, 2, body[at - 2], body[at - 1]]);
                }
            }
        });
        stream.write_all(&out).await?;
    }
}

async fn subscriber(
    runtime: &Handle,
    address: SocketAddr,
    id: &str,
    qos: u8,
) -> io::Result<Box<dyn TcpStream>> {
    let mut stream = connect(runtime, address, id).await?;
    let mut subscribe = b"\x82\x00\x00\x01\x00\x09load/test".to_vec();
    subscribe.push(qos);
    subscribe[1] = subscribe.len() as u8 - 2;
    stream.write_all(&subscribe).await?;
    let mut suback = [0; 5];
    stream.read_exact(&mut suback).await?;
    Ok(stream)
}

async fn latency(
    runtime: Handle,
    addresses: Vec<SocketAddr>,
    rate: u64,
    count: u64,
    qos: u8,
) -> io::Result<()> {
    let (took, begun) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
    let address = *addresses.last().unwrap();
    let stream = subscriber(&runtime, address, "sub", qos).await?;
    let times = took.clone();
    runtime.spawn(async move { drop(time(stream, begun, times, qos > 0).await) });
    let mut stream = connect(&runtime, addresses[0], "pub").await?;
    let mut buffer = vec![0; 4096];
    let start = Instant::now();
    for n in 0..count {
        let due = start + Duration::from_nanos(n * 1_000_000_000 / rate);
        runtime.sleep(due.saturating_duration_since(Instant::now())).await;
        let mut one = packet(qos, 100, (n % 65_535 + 1) as u16);
        let at = one.len() - 100;
        one[at..at + 8].copy_from_slice(&(begun.elapsed().as_micros() as u64).to_be_bytes());
        stream.write_all(&one).await?;
        // What is acknowledged is read, and not waited for.
        while qos > 0
            && let Some(n) = stream.read(&mut buffer).now_or_never()
        {
            assert!(n? > 0, "closed");
        }
    }
    runtime.sleep(Duration::from_secs(2)).await;
    let mut took = took.lock().unwrap().clone();
    took.sort_unstable();
    let part = |percent: usize| {
        took.get((took.len() * percent / 100).min(took.len().max(1) - 1)).copied().unwrap_or(0)
    };
    println!(
        "QoS {qos} at {rate}/s: p50 {} µs, p99 {} µs, lost {}",
        part(50),
        part(99),
        count - took.len() as u64
    );
    Ok(())
}

/// Clock ticks of CPU time, a hundredth of a second each.
fn ticks(pid: &str) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == "latency") {
        let addresses = args[1].split(',').map(|one| one.parse().unwrap()).collect();
        let number = |n: usize, default: u64| args.get(n).map_or(default, |arg| arg.parse().unwrap());
        let (rate, count, qos) = (number(2, 1000), number(3, 10_000), number(4, 0) as u8);
        return Executor::default().block_on(1, |runtime| latency(runtime, addresses, rate, count, qos))?;
    }
    let Some(addresses) = args.first() else {
        println!("load ADDRESS[,ADDRESS…] [QOS [MESSAGES [SUBSCRIBERS [WINDOW [BYTES [PID…]]]]]]");
        return Ok(());
    };
    let addresses: Vec<SocketAddr> = addresses.split(',').map(|one| one.parse().unwrap()).collect();
    let number = |n: usize, default: u64| args.get(n).map_or(default, |arg| arg.parse().unwrap());
    let (qos, count, subscribers) = (number(1, 0) as u8, number(2, 1_000_000), number(3, 1));
    let (window, payload, pids) = (number(4, 20), number(5, 100) as usize, args.get(6..).unwrap_or_default());
    let heard = Arc::new(AtomicU64::new(0));
    Executor::default().block_on(1, |runtime| async move {
        let others = if addresses.len() > 1 { &addresses[1..] } else { &addresses[..] };
        let ready = join_all((0..subscribers).map(async |n| {
            let address = others[n as usize % others.len()];
            subscriber(&runtime, address, &format!("sub{n}"), qos).await.unwrap()
        }));
        for stream in ready.await {
            let heard = heard.clone();
            runtime.spawn(async move { drop(subscribe(stream, heard).await) });
        }
        let stream = connect(&runtime, addresses[0], "pub").await?;
        let cpu: Vec<_> = pids.iter().map(|pid| ticks(pid)).collect();
        let begun = Instant::now();
        publish(stream, qos, count, window, payload).await?;
        let published = begun.elapsed();
        let (wanted, mut last, mut since) = (count * subscribers, 0, Instant::now());
        while heard.load(Ordering::Relaxed) < wanted && since.elapsed() < Duration::from_secs(3) {
            runtime.sleep(Duration::from_millis(1)).await;
            let now = heard.load(Ordering::Relaxed);
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        let got = heard.load(Ordering::Relaxed);
        let took = if got < wanted { since - begun } else { begun.elapsed() };
        println!(
            "QoS {qos}, {subscribers} subscribers: published {:.0}/s, delivered {:.0}/s, lost {} of {wanted}",
            count as f64 / published.as_secs_f64(),
            got as f64 / took.as_secs_f64(),
            wanted - got,
        );
        for (pid, before) in pids.iter().zip(cpu) {
            let spent = (ticks(pid) - before) as f64 * 10_000.0;
            println!("  process {pid}: {:.2} µs CPU a delivery", spent / got.max(1) as f64);
        }
        Ok(())
    })?
}
