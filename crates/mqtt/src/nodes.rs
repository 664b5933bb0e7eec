//! The brokers of a space as one of them sees the others: who is there, who has members of which groups, and which of them is
//! to act where one has to.
//!
//! ```text
//! said    = version kind groups
//! version = 01
//! kind    = 1 byte: 0 there, 1 about to end
//! groups  = 2 bytes: count; each: members that are connected, 2 bytes, members, 2 bytes, filter behind its length in 2
//! ```

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use crate::record::{Reader, put_text};

const VERSION: u8 = 1;

/// How often a broker says that it is there.
pub(crate) const BEAT: Duration = Duration::from_secs(3);
/// How long one is silent that is gone.
pub(crate) const SILENCE: Duration = Duration::from_secs(9);
/// Brokers that are known at most; of more those that were silent for longest are forgotten.
const MOST: usize = 4096;
/// Bytes of groups that a broker speaks of; members of others are its own matter.
const GROUPS: usize = 32 << 10;
/// Members of one broker that count for its share.
const SHARES: u16 = 16;

/// Members of a group at one broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) connected: u16,
    pub(crate) all: u16,
}

/// Groups, by the filter that begins with `$share/`.
pub(crate) type Groups = BTreeMap<Arc<str>, Members>;

#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) heard: Instant,
    pub(crate) is_gone: bool,
    groups: Groups,
}

/// What a broker says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) ends: bool,
    pub(crate) groups: Groups,
}

impl Said {
    pub(crate) fn encode(ends: bool, groups: &Groups) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(ends), 0, 0];
        let mut count = 0_u16;
        for (filter, members) in groups {
            if out.len() + filter.len() > GROUPS || count == u16::MAX {
                break;
            }
            out.extend(members.connected.to_be_bytes());
            out.extend(members.all.to_be_bytes());
            if put_text(&mut out, filter).is_none() {
                break;
            }
            count += 1;
        }
        out[2..4].copy_from_slice(&count.to_be_bytes());
        out
    }

    pub(crate) fn decode(data: &[u8]) -> Option<Self> {
        let mut from = Reader(data);
        if from.u8()? != VERSION {
            return None;
        }
        let ends = from.u8()? != 0;
        let mut groups = Groups::new();
        for _ in 0..from.u16()? {
            let members = Members { connected: from.u16()?, all: from.u16()? };
            groups.insert(from.text()?, members);
        }
        from.0.is_empty().then_some(Self { ends, groups })
    }
}

#[derive(Debug, Default)]
pub(crate) struct Nodes {
    seen: HashMap<u64, Seen>,
}

impl Nodes {
    /// One of which something is known: it is given time to say that it is there.
    pub(crate) fn meet(&mut self, node: u64, now: Instant) {
        if self.seen.len() >= MOST
            && !self.seen.contains_key(&node)
            && let Some(oldest) = self.seen.iter().min_by_key(|(_, seen)| seen.heard).map(|(node, _)| *node)
        {
            self.seen.remove(&oldest);
        }
        self.seen.entry(node).or_insert_with(|| Seen { heard: now, is_gone: false, groups: Groups::new() });
    }

    /// One has spoken. Gives back the groups of which it has fewer members than before.
    pub(crate) fn hear(&mut self, node: u64, said: Said, now: Instant) -> Vec<Arc<str>> {
        self.meet(node, now);
        let Some(seen) = self.seen.get_mut(&node) else { return Vec::new() };
        (seen.heard, seen.is_gone) = (now, said.ends);
        let groups = if said.ends { Groups::new() } else { said.groups };
        let before = std::mem::replace(&mut seen.groups, groups);
        let less = |(filter, was): (Arc<str>, Members)| {
            let is = seen.groups.get(&filter).copied().unwrap_or_default();
            (is.connected < was.connected || is.all < was.all).then_some(filter)
        };
        before.into_iter().filter_map(less).collect()
    }

    /// Those that have been silent for too long since they were last looked at, with when they were heard.
    pub(crate) fn lose(&mut self, now: Instant) -> Vec<(u64, Instant)> {
        let mut lost = Vec::new();
        for (node, seen) in &mut self.seen {
            if !seen.is_gone && now.saturating_duration_since(seen.heard) >= SILENCE {
                seen.is_gone = true;
                seen.groups.clear();
                lost.push((*node, seen.heard));
            }
        }
        lost
    }

    /// When the next one is gone, if it stays silent.
    pub(crate) fn next_loss(&self) -> Option<Instant> {
        self.seen.values().filter(|seen| !seen.is_gone).map(|seen| seen.heard + SILENCE).min()
    }

    /// This broker was not awake: nobody can be blamed for having been silent.
    pub(crate) fn forgive(&mut self, now: Instant) {
        self.seen.values_mut().filter(|seen| !seen.is_gone).for_each(|seen| seen.heard = now);
    }

    /// How long one is gone, if it is.
    pub(crate) fn gone_for(&self, node: u64, now: Instant) -> Option<Duration> {
        let seen = self.seen.get(&node)?;
        seen.is_gone.then(|| now.saturating_duration_since(seen.heard))
    }

    /// Brokers that are there, without this one.
    pub(crate) fn there(&self) -> impl Iterator<Item = u64> {
        self.seen.iter().filter(|(_, seen)| !seen.is_gone).map(|(node, _)| *node)
    }

    /// How many others are to act before `own` does, in what `what` stands for.
    pub(crate) fn place(&self, what: u64, own: u64) -> usize {
        let mine = lot(what, own);
        self.there().filter(|node| *node != own && lot(what, *node) > mine).count()
    }

    /// Which broker a message of a group goes to. Of those with connected members, or else with any, each by its share; the
    /// same at all brokers that know the same.
    pub(crate) fn choose(&self, filter: &str, what: u64, own: (u64, Members)) -> u64 {
        let others = self.seen.iter().filter(|(node, seen)| !seen.is_gone && **node != own.0);
        let others = others.filter_map(|(node, seen)| Some((*node, *seen.groups.get(filter)?)));
        let all: Vec<_> = others.chain([own]).collect();
        let connected = all.iter().any(|(_, members)| members.connected > 0);
        let weight = |members: &Members| if connected { members.connected } else { members.all };
        // More members are more lots: one more moves to that broker what it wins, and nothing else.
        let lots = all.iter().flat_map(|(node, members)| {
            (0..weight(members).min(SHARES))
                .map(move |n| (lot(what.wrapping_add(u64::from(n) << 32), *node), *node))
        });
        lots.max().map_or(own.0, |(_, node)| node)
    }
}

/// A number that all make of the same, and nobody can tell in advance from less.
pub(crate) fn lot(what: u64, node: u64) -> u64 {
    // SplitMix64's finalizer.
    let mut x = what.rotate_left(32) ^ node.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// FNV-1a of some bytes.
pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(connected: u16) -> Said {
        let members = Members { connected, all: connected };
        Said { ends: false, groups: [("$share/g/a".into(), members)].into() }
    }

    #[test]
    fn what_is_encoded_is_decoded_and_what_is_cut_off_is_none() {
        let groups = said(3).groups;
        let bytes = Said::encode(true, &groups);
        assert_eq!(Said::decode(&bytes), Some(Said { ends: true, groups }));
        for length in 0..bytes.len() {
            assert_eq!(Said::decode(&bytes[..length]), None);
        }
        let many =
            (0..2000).map(|n| (format!("$share/g/{n}/{}", "x".repeat(100)).into(), Members::default()));
        assert!(Said::encode(false, &many.collect()).len() <= GROUPS + 512);
    }

    #[test]
    fn each_message_goes_to_one_broker_by_its_share_and_the_same_for_all() {
        let now = Instant::now();
        // Three brokers, each with its own view of the other two, and 1, 2 and 4 members.
        let members = |n: u64| Members { connected: 1 << n, all: 1 << n };
        let views = [0, 1, 2].map(|own: u64| {
            let mut nodes = Nodes::default();
            for other in (0..3).filter(|other| *other != own) {
                nodes.hear(other, said(1 << other), now);
            }
            nodes
        });
        let mut counts = [0; 3];
        for what in 0..7000 {
            let chosen: Vec<_> = (0..3)
                .map(|own| {
                    views[own as usize].choose(
                        "$share/g/a",
                        hash(&[what as u8, (what >> 8) as u8]),
                        (own, members(own)),
                    )
                })
                .collect();
            assert!(chosen.iter().all(|node| *node == chosen[0]), "{chosen:?}");
            counts[chosen[0] as usize] += 1;
        }
        assert!((700..1300).contains(&counts[0]) && (1600..2400).contains(&counts[1]), "{counts:?}");
    }

    #[test]
    fn one_that_leaves_moves_nothing_but_its_own() {
        let now = Instant::now();
        let mut nodes = Nodes::default();
        for node in 1..5 {
            nodes.hear(node, said(1), now);
        }
        let own = (0, Members { connected: 1, all: 1 });
        let choose = |nodes: &Nodes| -> Vec<_> {
            (0..1000).map(|what| nodes.choose("$share/g/a", lot(what, 7), own)).collect()
        };
        let before = choose(&nodes);
        assert_eq!(nodes.hear(3, said(0), now), ["$share/g/a".into()]);
        for (before, after) in before.iter().zip(choose(&nodes)) {
            assert!(after != 3 && (*before == 3 || *before == after));
        }
    }

    #[test]
    fn one_that_is_silent_is_gone_and_one_acts_before_the_others() {
        let start = Instant::now();
        let mut nodes = Nodes::default();
        for node in 1..4 {
            nodes.hear(node, said(1), start);
        }
        nodes.hear(2, said(1), start + BEAT);
        assert_eq!(nodes.lose(start + SILENCE).len(), 2);
        assert!(nodes.lose(start + SILENCE).is_empty(), "once");
        assert_eq!(nodes.gone_for(2, start + SILENCE), None);
        assert_eq!(nodes.gone_for(1, start + SILENCE), Some(SILENCE));
        nodes.hear(1, said(1), start + SILENCE);
        assert_eq!(nodes.gone_for(1, start + SILENCE), None);
        let mut places: Vec<_> = [0, 1, 2].map(|own| nodes.place(42, own)).into();
        // Broker 0 sees the two others; those see 0 not, as it is not in this table.
        places.sort_unstable();
        assert!(places[0] == 0 && places[2] <= 2);
    }
}
