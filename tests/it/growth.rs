//! What nodes of one name cost as they grow in number, for whoever asks; CI does not run it.
//!
//! `NODES=50 cargo test --test it growth:: -- --ignored --nocapture` starts as many nodes in this process and prints how long it took
//! until each has a mesh, the connections of a node, memory, and processor time a message. `FULL=1` connects them in full.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use futures::future::join_all;
use smidge::Client;

use crate::{
    mesh::wait_for,
    support::{TOPIC, now, run, text},
};

/// Processor time of this process.
fn cpu() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let ticks: u64 =
        stat.rsplit(')').next().unwrap().split(' ').skip(12).take(2).map(|t| t.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// Resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn from_env(name: &str) -> Option<usize> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

async fn meshes(nodes: &[Client]) -> usize {
    let sizes =
        join_all(nodes.iter().map(async |node| node.mesh().await.unwrap().get(TOPIC).map_or(0, Vec::len)));
    sizes.await.into_iter().filter(|size| *size >= 4).count()
}

async fn connections(nodes: &[Client]) -> Vec<usize> {
    let mut all = join_all(nodes.iter().map(async |node| node.peers().await.unwrap().len())).await;
    all.sort_unstable();
    all
}

#[test]
#[ignore = "minutes, and a machine of its own: it prints figures"]
fn what_nodes_of_one_name_cost() {
    run(async |net| {
        let count = from_env("NODES").unwrap_or(50);
        let all: Vec<u8> = (2..).take(count).collect();
        net.set("many", all.clone());
        let (start, before) = (Instant::now(), resident());
        let nodes: Vec<_> = all
            .iter()
            .map(|n| {
                let mut config = net.config(*n, &["many"]);
                if from_env("FULL").is_some() {
                    config.dial.full = count;
                }
                config.limits.events = 64;
                net.spawn(config)
            })
            .collect();
        let began = (start.elapsed(), cpu());
        while meshes(&nodes).await < count {
            net.rt.sleep(Duration::from_millis(500)).await;
        }
        println!(
            "{count} nodes: began after {:.1} s, all meshed after {:.1} s, {:.1} s of processor",
            began.0.as_secs_f64(),
            start.elapsed().as_secs_f64(),
            (cpu() - began.1).as_secs_f64()
        );
        let shown = |all: Vec<usize>| {
            format!(
                "{} to {}, median {}, mean {:.1}",
                all[0],
                all[count - 1],
                all[count / 2],
                all.iter().sum::<usize>() as f64 / count as f64
            )
        };
        println!("connections: {}", shown(connections(&nodes).await));
        for _ in 0..6 {
            net.rt.sleep(Duration::from_secs(10)).await;
            println!("after {:.0} s: {}", start.elapsed().as_secs_f64(), shown(connections(&nodes).await));
        }
        println!("resident: {} KiB a node", (resident() - before) / count as u64);
        let idle = cpu();
        net.rt.sleep(Duration::from_secs(20)).await;
        println!(
            "idle: {:.2} ms of processor a node and second",
            (cpu() - idle).as_secs_f64() * 50.0 / count as f64
        );
        let mut heard = Vec::new();
        for node in &nodes {
            heard.push(node.subscribe(TOPIC).await.unwrap());
        }
        let published = cpu();
        let messages: BTreeSet<String> = (0..20).map(|n| n.to_string()).collect();
        for message in &messages {
            nodes[0].publish(TOPIC, message.clone(), wait_for(1)).await.unwrap();
            net.rt.sleep(Duration::from_millis(500)).await;
        }
        net.rt.sleep(Duration::from_secs(5)).await;
        let spent = (cpu() - published).saturating_sub(Duration::ZERO);
        let delivered: usize = heard
            .iter_mut()
            .map(|s| std::iter::from_fn(|| now(s)).filter(|m| messages.contains(&text(m))).count())
            .sum();
        println!(
            "delivered: {delivered} of {}; {:.1} ms of processor a message, 15 s of idling included",
            20 * count,
            spent.as_secs_f64() * 50.0
        );
    });
}
