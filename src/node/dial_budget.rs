//! How often this node dials what others claim: in all, to one host, and to one network.
//!
//! Who makes up addresses must not make this node scan or flood anybody. Pure: addresses and moments in, verdicts
//! out. What was dialed before and answered is no claim, and not counted here.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

/// Dials in a burst, and the pause that earns another one.
#[derive(Clone, Copy, Debug)]
struct Rate {
    burst: u32,
    pause: Duration,
}

/// To anybody.
const ALL: Rate = Rate { burst: 128, pause: Duration::from_millis(62) };
/// To one network: a /24 of IPv4, a /48 of IPv6.
const NETWORK: Rate = Rate { burst: 64, pause: Duration::from_millis(125) };
/// To one host: an address of IPv4, a /64 of IPv6.
const HOST: Rate = Rate { burst: 32, pause: Duration::from_millis(250) };
/// Destinations noted before those are forgotten that count no more. What is dialed in all bounds the others.
const NOTED: usize = 256;

/// The account of dials.
#[derive(Debug, Default)]
pub(crate) struct DialBudget {
    /// The moment at which nothing counts any more (a leaky bucket: each dial puts it off by a pause).
    all: Option<Instant>,
    destinations: HashMap<IpAddr, Instant>,
}

impl DialBudget {
    /// Whether `ip` may be dialed now; if so, it is counted.
    pub(crate) fn take(&mut self, ip: IpAddr, now: Instant) -> bool {
        let [host, network] = destinations(ip);
        let after = |until: Option<&Instant>, rate: Rate| {
            let next = until.map_or(now, |until| (*until).max(now)) + rate.pause;
            (next <= now + rate.pause * rate.burst).then_some(next)
        };
        let (Some(all), Some(by_host), Some(by_network)) = (
            after(self.all.as_ref(), ALL),
            after(self.destinations.get(&host), HOST),
            after(self.destinations.get(&network), NETWORK),
        ) else {
            return false;
        };
        if self.destinations.len() >= NOTED {
            self.destinations.retain(|_, until| *until > now);
        }
        self.all = Some(all);
        self.destinations.insert(host, by_host);
        self.destinations.insert(network, by_network);
        true
    }
}

/// The host and the network that an address stands for, which differ.
fn destinations(ip: IpAddr) -> [IpAddr; 2] {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            // As an address of IPv6, so that it is not taken for the host 0 of the network.
            [ip.into(), Ipv4Addr::new(a, b, c, 0).to_ipv6_mapped().into()]
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, ..] = ip.segments();
            // The last bit tells the network from its first /64.
            [Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into(), Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 1).into()]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &mut DialBudget, now: Instant, ips: impl Iterator<Item = IpAddr>) -> usize {
        ips.filter(|ip| budget.take(*ip, now)).count()
    }

    #[test]
    fn one_host_one_network_and_all_together_have_a_bound_each_which_grows_with_time_alone() {
        let now = Instant::now();
        let v4 = |n: u32| IpAddr::from(n.to_be_bytes());
        let base = u32::from_be_bytes([203, 0, 113, 0]);
        type Ips = Box<dyn Fn(u32) -> IpAddr>;
        let (one, net, all): (Ips, Ips, Ips) = (
            Box::new(move |_| v4(base)),
            Box::new(move |n| v4(base + n % 250)),
            Box::new(move |n| v4(n.wrapping_mul(0x0101_0107))),
        );
        for (name, ips, rate) in [("host", one, HOST), ("network", net, NETWORK), ("all", all, ALL)] {
            let mut budget = DialBudget::default();
            assert_eq!(taken(&mut budget, now, (0..5000).map(&ips)), rate.burst as usize, "{name}");
            let later = now + rate.pause * 10;
            assert_eq!(taken(&mut budget, later, (0..5000).map(&ips)), 10, "{name}");
            let much_later = now + Duration::from_secs(3600);
            assert_eq!(taken(&mut budget, much_later, (0..5000).map(&ips)), rate.burst as usize, "{name}");
        }
        let mut budget = DialBudget::default();
        let v6 = (0..5000_u64).map(|n| Ipv6Addr::from((0x2a00 << 112) | u128::from(n)).into());
        assert_eq!(taken(&mut budget, now, v6), HOST.burst as usize, "a /64 is one host");
    }

    #[test]
    fn what_is_noted_is_bounded() {
        let (mut budget, mut now) = (DialBudget::default(), Instant::now());
        for n in 0..20_000_u32 {
            budget.take(IpAddr::from(n.wrapping_mul(0x9e37_79b9).to_be_bytes()), now);
            now += ALL.pause;
            assert!(budget.destinations.len() <= 2 * NOTED, "{}", budget.destinations.len());
        }
    }
}
