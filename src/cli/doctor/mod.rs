//! `smidge doctor`: what goes wrong in practice, looked at before it does.
//!
//! A file per kind of check. Each gathers figures in a few lines and hands them to a pure `judge` that
//! says what they mean and what to do. Mends nothing, makes no file, needs no running node.

use std::net::IpAddr;

use clap::Args;
use libp2p::Multiaddr;

use self::finding::Report;
use super::{Failure, api::ApiArgs, exit, print, run::NodeArgs};
use crate::{
    config::{Config, check_address},
    runtime::Handle,
};

mod exposure;
mod finding;
mod host;
mod key;
mod limits;
mod links;
mod listen;
mod mdns;
#[cfg(feature = "mqtt")]
mod mqtt;
mod names;
mod node;
mod paths;
mod records;
mod resolver;
mod store;
mod udp;

/// Looks at what goes wrong in practice, and says what to do.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  smidge doctor --config config/peer.toml\n  smidge doctor --dial bootstrap:4001 --json\n\n\
    Takes the same configuration as `run` and needs no running node; one that runs is asked\n\
    through --api, or where api.listen puts it. Each line is ok, warn or fail, with what to do.\n\
    Records are tried with a handshake under a key of its own: the nodes there log a peer\n\
    that comes and goes. Exit code 1 if a line says fail, 0 otherwise.\n\n\
    --exposure says instead what the node lets others do, by who they are, and tries nothing.\n\n\
    --json: {\"ok\", \"counts\": {\"ok\", \"warn\", \"fail\"}, \"checks\": [{\"group\", \"check\", \"subject\",\n\
    \"verdict\", \"found\", \"advice\"}]}; `check` and `verdict` are stable, the words are not."
)]
pub(crate) struct DoctorArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Say what can be reached from where, and nothing else
    #[arg(long)]
    exposure: bool,
    /// Print a JSON record
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) fn run(args: &DoctorArgs) -> Result<(), Failure> {
    let config = Config::load(&args.node.options())?;
    let (executor, threads) = (config.runtime.executor, config.runtime.threads);
    let report = executor
        .block_on(threads, |runtime| async move { examine(args, &config, &runtime).await })
        .map_err(|e| Failure::new(exit::FAILED, "runtime", e))??;
    print(&if args.json { format!("{}\n", report.json()) } else { report.text() })?;
    // The report has said why.
    if report.failed() { Err(Failure { code: exit::FAILED, ..Failure::quiet() }) } else { Ok(()) }
}

async fn examine(args: &DoctorArgs, config: &Config, runtime: &Handle) -> Result<Report, Failure> {
    let interfaces = runtime.interfaces().and_then(|watch| watch.list()).unwrap_or_default();
    let ips: Vec<IpAddr> = interfaces.into_iter().map(|interface| interface.addr).collect();
    if args.exposure {
        let (_, node) = node::check(&args.api, config, runtime, None).await?;
        return Ok(exposure::report(config, &ips, &node.running.listening));
    }
    let mut report = Report::default();
    let warnings = config.warnings();
    let findings = warnings.into_iter().map(|warning| {
        finding::Finding::warn(
            "config.warning",
            "configuration",
            warning,
            "`smidge config show` has all of it",
        )
    });
    report.group("configuration", findings.collect());
    let machine = config.clone();
    let (host, limits) = runtime
        .unblock(move || (host::check(), limits::check(&machine)))
        .await
        .map_err(|e| Failure::new(exit::FAILED, "runtime", e))?;
    report.group("host", host);
    report.group("limits", limits);
    report.group("udp", udp::check(config, runtime));
    report.group("links", links::check(config, runtime));
    report.group("mdns", mdns::check(config, runtime));

    let (key, own) = key::check(config);
    report.group(
        "identity",
        std::iter::once(key).chain(key::network(config)).chain(key::secrets(config)).collect(),
    );
    report.group("store", vec![store::check(config)]);
    let (found, node) = node::check(&args.api, config, runtime, own).await?;
    report.group("node", std::iter::once(found).chain(node.findings()).collect());
    report.group("listen", listen::check(config, runtime, &node.running).await);
    #[cfg(feature = "mqtt")]
    report.group("mqtt", mqtt::check(config, runtime, &node.running).await);

    let here = |address: &Multiaddr| is_here(address, &ips, &config.listen.addresses);
    let servers = resolver::check(config, runtime).await;
    let servers_are_well = servers.iter().all(|finding| finding.verdict == finding::Verdict::Ok);
    report.group("dns", servers);
    let (found, names) = names::check(config, runtime, &here, servers_are_well).await;
    report.group("names", found);
    let me = node.peer.or(own);
    report.group("records", records::check(config, runtime, names, &here, me).await);
    Ok(report)
}

/// Whether `address` is one that this host's node listens on, or would.
fn is_here(address: &Multiaddr, ips: &[IpAddr], listen: &[Multiaddr]) -> bool {
    let Ok((over, socket, _)) = check_address(address) else { return false };
    let listens = |on: &Multiaddr| {
        check_address(on).is_ok_and(|(kind, on, _)| {
            let everywhere = on.ip().is_unspecified() && on.is_ipv4() == socket.is_ipv4();
            kind == over && on.port() == socket.port() && (everywhere || on.ip() == socket.ip())
        })
    };
    (ips.contains(&socket.ip()) || socket.ip().is_loopback()) && listen.iter().any(listens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_ours_by_interface_and_port() {
        let at = |text: &str| text.parse::<Multiaddr>().unwrap();
        let ips = ["10.0.0.7".parse().unwrap()];
        let everywhere = [at("/ip4/0.0.0.0/udp/4001/quic-v1")];
        let one = [at("/ip4/10.0.0.7/udp/4001/quic-v1")];
        for (address, listen, expected) in [
            ("/ip4/10.0.0.7/udp/4001/quic-v1", &everywhere, true),
            ("/ip4/10.0.0.7/udp/4001/quic-v1", &one, true),
            ("/ip4/127.0.0.1/udp/4001/quic-v1", &everywhere, true),
            ("/ip4/127.0.0.1/udp/4001/quic-v1", &one, false),
            ("/ip4/10.0.0.7/udp/4002/quic-v1", &everywhere, false),
            ("/ip4/10.0.0.8/udp/4001/quic-v1", &everywhere, false),
            ("/ip6/::1/udp/4001/quic-v1", &everywhere, false),
            ("/ip4/10.0.0.7/tcp/4001", &everywhere, false),
        ] {
            assert_eq!(is_here(&at(address), &ips, listen), expected, "{address} {listen:?}");
        }
    }
}
