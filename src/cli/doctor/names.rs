//! Each name that is to be dialed: does it resolve, to how many, by which kind of service.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use futures::StreamExt;
use libp2p::Multiaddr;

use super::{finding::Finding, resolver::NOBODY};
use crate::{
    config::{Config, Target, TransportKind},
    dialer::{Answer, Open, lookup},
    dns::{self, Family, Found, Resolve},
    error::chain,
    node::{dns_config, targets},
    runtime::Handle,
    transport::multiaddr::ip,
};

const CHECK: &str = "names.resolves";
/// In a Swarm, `tasks.` before a service's name has one record a task, whatever the service's mode is.
const TASKS: &str = "tasks.";
/// What no service is called: where it has addresses before a service's name, everything has.
const NOTHING: &str = "smidge-no-such-name.";

/// A name and what it leads to.
#[derive(Debug)]
pub(super) struct Named {
    pub(super) name: String,
    pub(super) addresses: Vec<Multiaddr>,
}

/// What there is to say of each name, and the records to try. Questions are asked at the same time.
pub(super) async fn check(
    config: &Config,
    runtime: &Handle,
    here: &(dyn Fn(&Multiaddr) -> bool + Sync),
    servers_are_well: bool,
) -> (Vec<Finding>, Vec<Named>) {
    let resolver = match dns::resolver(dns_config(config), runtime.clone()) {
        Ok(resolver) => resolver,
        Err(e) => {
            let advice = "mend the section [dns] of the configuration";
            return (vec![Finding::fail(CHECK, "resolver", chain(&e), advice)], Vec::new());
        }
    };
    let all = targets(config);
    let over: Arc<[TransportKind]> = config.name_transports().into();
    let looked = all.iter().map(|target| look(resolver.clone(), target.clone(), over.clone()));
    // A server that answers for this one is not silent for all, whatever it does for the others.
    let other = resolver.settled(NOBODY, Family::V4);
    let (looked, _) = futures::future::join(futures::future::join_all(looked), other).await;
    let (mut findings, mut names) = (Vec::new(), Vec::new());
    for (target, (answer, tasks)) in all.iter().zip(looked) {
        let name = target.to_string();
        if target.host().is_some() {
            findings.push(judge(
                &name,
                &answer,
                kind(&answer, tasks.as_deref()),
                config.limits.records,
                here,
                servers_are_well,
            ));
        }
        if let Answer::Records(addresses) | Answer::Part(addresses, _) = answer {
            names.push(Named { name, addresses });
        }
    }
    (findings, names)
}

/// The records of a target, and of its tasks if it may be a Swarm service.
async fn look(
    resolver: Arc<dyn Resolve>,
    target: Target,
    over: Arc<[TransportKind]>,
) -> (Answer, Option<Vec<IpAddr>>) {
    let tasks = async {
        match &target {
            Target::Name { host, .. } if !host.starts_with(TASKS) && host.len() + NOTHING.len() < 254 => {
                let below = |label| resolver.settled(&format!("{label}{host}"), Family::Any);
                let (tasks, nothing) = futures::future::join(below(TASKS), below(NOTHING)).await;
                tasks
                    .ok()
                    .map(|found| found.addresses)
                    .filter(|tasks| !is_wildcard(tasks, nothing.ok().as_ref()))
            }
            _ => None,
        }
    };
    let answers = lookup(resolver.clone(), target.clone(), over).collect::<Vec<_>>();
    let (mut answers, tasks) = futures::future::join(answers, tasks).await;
    (answers.pop().unwrap_or_else(|| Answer::Failed("the question was dropped".into())), tasks)
}

/// Whether a name that cannot exist has the same addresses (dnsmasq's `address=/DOMAIN/ADDRESS`, or a
/// wildcard record): then they say nothing about tasks.
fn is_wildcard(tasks: &[IpAddr], nothing: Option<&Found>) -> bool {
    nothing.is_some_and(|nothing| tasks.iter().all(|task| nothing.addresses.contains(task)))
}

/// How a service answers for its replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// Nothing special.
    Plain,
    /// A record for each task: Swarm's dnsrr.
    EachTask,
    /// One address in front of so many tasks: Swarm's vip.
    Virtual(usize),
}

/// How many sockets these addresses lead to.
fn count<'a>(addresses: impl Iterator<Item = &'a Multiaddr>) -> usize {
    addresses.filter_map(|a| TransportKind::and_socket(a).map(|(_, at)| at)).collect::<BTreeSet<_>>().len()
}

fn kind(answer: &Answer, tasks: Option<&[IpAddr]>) -> Service {
    let (Answer::Records(records) | Answer::Part(records, _), Some(tasks)) = (answer, tasks) else {
        return Service::Plain;
    };
    let own: BTreeSet<IpAddr> = records.iter().filter_map(ip).collect();
    let tasks: BTreeSet<IpAddr> = tasks.iter().copied().collect();
    // While tasks come and go the two answers may differ, but not in everything.
    if own.is_disjoint(&tasks) { Service::Virtual(tasks.len()) } else { Service::EachTask }
}

fn judge(
    name: &str,
    answer: &Answer,
    service: Service,
    most: usize,
    here: &dyn Fn(&Multiaddr) -> bool,
    servers_are_well: bool,
) -> Finding {
    // What the group dns found nothing wrong with is not to be mended.
    let mend = if servers_are_well {
        "the name servers above are well: it is what they know of this name that has to be mended"
    } else {
        "mend what the group dns says first, then try again"
    };
    let records = match answer {
        Answer::Records(records) => records,
        Answer::Part(records, Open { why: Some(why), refused: false, .. }) => {
            let found = format!("{} of it, and: {why}", counted(count(records.iter())));
            return Finding::warn(CHECK, name, found, mend);
        }
        Answer::Part(records, _) => records,
        Answer::Nothing(why) => {
            let advice = "is the service up, healthy, on a network of this host, and spelled so? In a Swarm it needs \
                          endpoint_mode: dnsrr; a task has its record once it is healthy";
            return Finding::fail(CHECK, name, why, advice);
        }
        Answer::Failed(why) => {
            return Finding::fail(CHECK, name, why, mend);
        }
    };
    // One record may be an address for each transport.
    let (count, own) = (count(records.iter()), count(records.iter().filter(|address| here(address))));
    let mut found = counted(count);
    if own > 0 {
        found.push_str(", this node among them");
    }
    match service {
        Service::Virtual(tasks) => {
            let found = format!(
                "{found}: a virtual IP, in front of {tasks} tasks that tasks.{name} names; only one of them at a time \
                 can be connected to"
            );
            let advice = format!(
                "set endpoint_mode: dnsrr for the service, or dial {TASKS}{name} instead: both have a record for each \
                 replica"
            );
            Finding::warn(CHECK, name, found, advice)
        }
        _ if count > most => {
            let advice = format!("set limits.records to {count} or more");
            Finding::warn(
                CHECK,
                name,
                format!("{found}, of which limits.records = {most} are followed"),
                advice,
            )
        }
        Service::EachTask => Finding::ok(CHECK, name, format!("{found}, one for each task (dnsrr)")),
        Service::Plain => Finding::ok(CHECK, name, found),
    }
}

fn counted(records: usize) -> String {
    if records == 1 { "1 record".to_owned() } else { format!("{records} records") }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    fn answer(ips: &[&str]) -> Answer {
        let quic = |ip: &&str| format!("/ip4/{ip}/udp/4001/quic-v1").parse().unwrap();
        Answer::Records(ips.iter().map(quic).collect())
    }

    fn ips(ips: &[&str]) -> Vec<IpAddr> {
        ips.iter().map(|ip| ip.parse().unwrap()).collect()
    }

    #[test]
    fn a_virtual_ip_is_told_by_tasks_that_are_elsewhere() {
        let one = answer(&["10.0.0.2"]);
        let three = ips(&["10.0.0.3", "10.0.0.4", "10.0.0.5"]);
        assert_eq!(kind(&one, None), Service::Plain);
        assert_eq!(kind(&one, Some(&three)), Service::Virtual(3));
        assert_eq!(kind(&one, Some(&ips(&["10.0.0.2"]))), Service::EachTask);
        assert_eq!(kind(&answer(&["10.0.0.3", "10.0.0.9"]), Some(&three)), Service::EachTask);
        assert_eq!(kind(&Answer::Nothing("no".into()), Some(&three)), Service::Plain);
    }

    #[test]
    fn what_every_name_has_says_nothing_about_tasks() {
        let tasks = ips(&["10.0.0.3", "10.0.0.4"]);
        let found = |of: &[&str]| Found::all(ips(of));
        assert!(!is_wildcard(&tasks, None));
        assert!(!is_wildcard(&tasks, Some(&found(&["10.0.0.3"]))));
        assert!(is_wildcard(&tasks, Some(&found(&["10.0.0.4", "10.0.0.3"]))));
    }

    #[test]
    fn servers_that_are_well_are_not_to_be_mended() {
        let part = |refused| {
            let Answer::Records(records) = answer(&["10.0.0.2"]) else { panic!("records") };
            let open = Open { family: crate::config::Family::V6, why: Some("silence".into()), refused };
            Answer::Part(records, open)
        };
        for (answer, expected) in [
            (Answer::Failed("it is silent for this name".into()), Verdict::Fail),
            (part(false), Verdict::Warn),
            (part(true), Verdict::Ok),
        ] {
            let advice = |well| judge("peer:4001", &answer, Service::Plain, 9, &|_| false, well);
            let [well, ill] = [advice(true), advice(false)];
            assert_eq!((well.verdict, ill.verdict), (expected, expected), "{well:?}");
            if let (Some(well), Some(ill)) = (well.advice, ill.advice) {
                assert!(
                    !well.contains("first") && well.contains("this name") && ill.contains("dns"),
                    "{well} {ill}"
                );
            }
        }
    }

    #[test]
    fn each_answer_has_its_verdict() {
        let two = answer(&["10.0.0.2", "10.0.0.3"]);
        let over_both = match answer(&["10.0.0.2"]) {
            Answer::Records(mut one) => {
                one.push("/ip4/10.0.0.2/tcp/4001".parse().unwrap());
                Answer::Records(one)
            }
            other => other,
        };
        let own = |address: &Multiaddr| address.to_string().contains("10.0.0.3");
        for (answer, service, most, expected, words) in [
            (&two, Service::Plain, 9, Verdict::Ok, "2 records, this node among them"),
            (&over_both, Service::Plain, 1, Verdict::Ok, "1 record"),
            (&two, Service::EachTask, 9, Verdict::Ok, "one for each task (dnsrr)"),
            (&two, Service::Virtual(4), 9, Verdict::Warn, "in front of 4 tasks"),
            (&two, Service::Plain, 1, Verdict::Warn, "limits.records = 1"),
            (&Answer::Nothing("no such name".into()), Service::Plain, 9, Verdict::Fail, "no such name"),
            (&Answer::Failed("silence".into()), Service::Plain, 9, Verdict::Fail, "silence"),
        ] {
            let finding = judge("peer:4001", answer, service, most, &own, true);
            assert_eq!(finding.verdict, expected, "{finding:?}");
            assert!(finding.found.contains(words), "{finding:?}");
        }
        let advice = judge("peer:4001", &two, Service::Virtual(4), 9, &own, true).advice.unwrap();
        assert!(advice.contains("dial tasks.peer:4001 instead"), "{advice}");
    }
}
