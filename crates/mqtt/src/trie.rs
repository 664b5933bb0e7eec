//! Who is subscribed to a topic.
//!
//! A level of a filter is a step down, so that a topic is looked up in as many steps as levels of it are subscribed to. With
//! `+` there are two ways down from a level: what a lookup costs is bounded by the levels of all filters together, and
//! those are what `Limits` bounds.

use std::{collections::HashMap, sync::Arc};

use slab::Slab;

use crate::{message::Qos, topic};

/// How a client wants what matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) qos: Qos,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// Its subscription identifier; 0: none.
    pub(crate) id: u32,
}

/// One subscription that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    pub(crate) session: usize,
    pub(crate) options: Options,
    /// By a group that shares it: its own delivery in any case.
    pub(crate) shared: bool,
}

#[derive(Debug)]
struct Group {
    name: Box<str>,
    /// The filter with `$share/` and the name.
    whole: Arc<str>,
    members: Vec<(usize, Options)>,
    /// Whose turn it is.
    next: usize,
}

/// All that end at one place: with a level, or with `#` behind it.
#[derive(Debug, Default)]
struct Ends {
    plain: Vec<(usize, Options)>,
    groups: Vec<Group>,
}

impl Ends {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.groups.is_empty()
    }
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, usize>,
    plus: Option<usize>,
    here: Ends,
    below: Ends,
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.plus.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

/// All subscriptions of a broker.
#[derive(Debug)]
pub(crate) struct Trie {
    nodes: Slab<Node>,
    root: usize,
}

impl Default for Trie {
    fn default() -> Self {
        let mut nodes = Slab::new();
        let root = nodes.insert(Node::default());
        Self { nodes, root }
    }
}

/// The group that a filter is shared in, and the filter proper.
fn split(filter: &str) -> (Option<&str>, &str) {
    match topic::shared(filter) {
        Some(Ok((group, filter))) => (Some(group), filter),
        _ => (None, filter),
    }
}

impl Trie {
    /// Subscribes, or changes the options of a subscription. The filter is valid.
    pub(crate) fn insert(&mut self, filter: &str, session: usize, options: Options) {
        let whole = filter;
        let (group, filter) = split(filter);
        let mut at = self.root;
        let mut deep = false;
        for level in filter.split('/') {
            match level {
                "#" => deep = true,
                "+" => {
                    at = match self.nodes[at].plus {
                        Some(next) => next,
                        None => {
                            let next = self.nodes.insert(Node::default());
                            self.nodes[at].plus = Some(next);
                            next
                        }
                    }
                }
                level => {
                    at = match self.nodes[at].children.get(level) {
                        Some(next) => *next,
                        None => {
                            let next = self.nodes.insert(Node::default());
                            self.nodes[at].children.insert(level.into(), next);
                            next
                        }
                    }
                }
            }
        }
        let node = &mut self.nodes[at];
        let ends = if deep { &mut node.below } else { &mut node.here };
        let members = match group {
            None => &mut ends.plain,
            Some(name) => {
                let known = ends.groups.iter().position(|group| &*group.name == name);
                let index = known.unwrap_or_else(|| {
                    ends.groups.push(Group {
                        name: name.into(),
                        whole: whole.into(),
                        members: Vec::new(),
                        next: 0,
                    });
                    ends.groups.len() - 1
                });
                &mut ends.groups[index].members
            }
        };
        match members.iter_mut().find(|(member, _)| *member == session) {
            Some((_, old)) => *old = options,
            None => members.push((session, options)),
        }
    }

    /// Ends a subscription.
    pub(crate) fn remove(&mut self, filter: &str, session: usize) {
        let (group, filter) = split(filter);
        let mut way = vec![self.root];
        let mut deep = false;
        for level in filter.split('/') {
            let node = &self.nodes[way[way.len() - 1]];
            let next = match level {
                "#" => {
                    deep = true;
                    break;
                }
                "+" => node.plus,
                level => node.children.get(level).copied(),
            };
            let Some(next) = next else { return };
            way.push(next);
        }
        let node = &mut self.nodes[way[way.len() - 1]];
        let ends = if deep { &mut node.below } else { &mut node.here };
        match group {
            None => ends.plain.retain(|(member, _)| *member != session),
            Some(name) => {
                for group in ends.groups.iter_mut().filter(|group| &*group.name == name) {
                    group.members.retain(|(member, _)| *member != session);
                }
                ends.groups.retain(|group| !group.members.is_empty());
            }
        }
        let levels: Vec<_> = filter.split('/').collect();
        for parent in (0..way.len() - 1).rev() {
            let level = levels[parent];
            let child = way[parent + 1];
            if !self.nodes[child].is_empty() {
                break;
            }
            self.nodes.remove(child);
            let parent = &mut self.nodes[way[parent]];
            if level == "+" {
                parent.plus = None;
            } else {
                parent.children.remove(level);
            }
        }
    }

    /// The group that a filter with `$share/` is of.
    fn group(&mut self, filter: &str) -> Option<&mut Group> {
        let (Some(name), filter) = split(filter) else { return None };
        let mut at = self.root;
        let mut deep = false;
        for level in filter.split('/') {
            let node = &self.nodes[at];
            at = match level {
                "#" => {
                    deep = true;
                    break;
                }
                "+" => node.plus?,
                level => *node.children.get(level)?,
            };
        }
        let node = &mut self.nodes[at];
        let ends = if deep { &mut node.below } else { &mut node.here };
        ends.groups.iter_mut().find(|group| &*group.name == name)
    }

    /// The members of a group.
    pub(crate) fn members(&mut self, filter: &str) -> Vec<usize> {
        let members = self.group(filter).map(|group| group.members.iter().map(|(session, _)| *session));
        members.map(Iterator::collect).unwrap_or_default()
    }

    /// Whose turn it is in a group.
    pub(crate) fn turn(&mut self, filter: &str, ready: &dyn Fn(usize) -> bool) -> Option<Match> {
        self.group(filter)?.turn(ready)
    }

    /// Everybody that a message with this topic is for. Of a group it is the next one that is `ready`, or the next one
    /// if none is; nobody, if it is to go elsewhere.
    pub(crate) fn matches(&mut self, topic: &str, found: &mut Vec<Match>, pick: Pick<'_>) {
        found.clear();
        let wild = !topic.starts_with('$');
        self.walk(self.root, Some(topic), wild, found, pick);
    }

    fn walk(&mut self, at: usize, rest: Option<&str>, wild: bool, found: &mut Vec<Match>, pick: Pick<'_>) {
        let node = &mut self.nodes[at];
        if wild {
            take(&mut node.below, found, pick);
        }
        let Some(rest) = rest else {
            take(&mut node.here, found, pick);
            return;
        };
        let (level, rest) = match rest.split_once('/') {
            Some((level, rest)) => (level, Some(rest)),
            None => (rest, None),
        };
        let (plus, child) = (node.plus.filter(|_| wild), node.children.get(level).copied());
        for next in [plus, child].into_iter().flatten() {
            self.walk(next, rest, true, found, pick);
        }
    }

    /// Places that filters lead through, the root included.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }
}

/// How one of a group is picked.
#[derive(Clone, Copy)]
pub(crate) struct Pick<'a> {
    /// Whether a session takes messages now.
    pub(crate) ready: &'a dyn Fn(usize) -> bool,
    /// Whether a message of this group, by its whole filter, is for members elsewhere.
    pub(crate) elsewhere: &'a dyn Fn(&Arc<str>) -> bool,
}

impl Group {
    fn turn(&mut self, ready: &dyn Fn(usize) -> bool) -> Option<Match> {
        let count = self.members.len();
        let mut turns = (0..count).map(|n| (self.next + n) % count);
        let chosen = turns.clone().find(|n| ready(self.members[*n].0)).or_else(|| turns.next())?;
        self.next = (chosen + 1) % count;
        let (session, options) = self.members[chosen];
        Some(Match { session, options, shared: true })
    }
}

fn take(ends: &mut Ends, found: &mut Vec<Match>, pick: Pick<'_>) {
    let plain = ends.plain.iter();
    found.extend(plain.map(|(session, options)| Match {
        session: *session,
        options: *options,
        shared: false,
    }));
    for group in &mut ends.groups {
        if !(pick.elsewhere)(&group.whole) {
            found.extend(group.turn(pick.ready));
        }
    }
}

/// What one client gets of all its subscriptions that match: one copy, at the highest quality, with all identifiers
/// (MQTT 5, 3.3.4). What it gets as a member of a group is its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    pub(crate) session: usize,
    pub(crate) qos: Qos,
    pub(crate) retain_as_published: bool,
    pub(crate) ids: Option<Arc<[u32]>>,
}

/// Sorts what was found by client, without what a client is not to hear of itself.
pub(crate) fn sort(found: &mut Vec<Match>, from: Option<usize>) {
    if let Some(from) = from {
        found.retain(|found| found.session != from || !found.options.no_local);
    }
    if found.len() > 1 {
        found.sort_by_key(|found| (found.session, found.shared));
    }
}

/// Whether two that follow each other are one copy.
pub(crate) fn is_one_copy(one: &Match, next: &Match) -> bool {
    one.session == next.session && !one.shared && !next.shared
}

/// What subscriptions of one client make of a message.
pub(crate) fn delivery(found: &[Match]) -> Option<Delivery> {
    let first = found.first()?;
    let ids = found.iter().map(|found| found.options.id).filter(|id| *id != 0);
    Some(Delivery {
        session: first.session,
        qos: found.iter().map(|found| found.options.qos).max().unwrap_or_default(),
        retain_as_published: found.iter().any(|found| found.options.retain_as_published),
        ids: found.iter().any(|found| found.options.id != 0).then(|| ids.collect()),
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const PLAIN: Options =
        Options { qos: Qos::AtLeastOnce, no_local: false, retain_as_published: false, id: 0 };

    fn sessions(trie: &mut Trie, topic: &str) -> BTreeSet<usize> {
        let mut found = Vec::new();
        trie.matches(topic, &mut found, Pick { ready: &|_| true, elsewhere: &|_| false });
        found.into_iter().map(|found| found.session).collect()
    }

    proptest! {
        /// The trie finds what a comparison with each filter finds, and forgets all of it.
        #[test]
        fn a_lookup_finds_what_matches(
            filters in proptest::collection::vec("(\\$|a|b|\\+|)(/(a|b|\\+|)){0,3}(/#)?", 1..20),
            topics in proptest::collection::vec("(\\$|a|b|)(/(a|b|)){0,3}", 1..20),
        ) {
            let filters: Vec<_> = filters.into_iter().filter(|filter| topic::is_filter(filter)).collect();
            let mut trie = Trie::default();
            for (session, filter) in filters.iter().enumerate() {
                trie.insert(filter, session, PLAIN);
            }
            for topic in topics.iter().filter(|topic| !topic.is_empty()) {
                let expected: BTreeSet<_> =
                    (0..filters.len()).filter(|n| topic::matches(&filters[*n], topic)).collect();
                prop_assert_eq!(sessions(&mut trie, topic), expected, "{}", topic);
            }
            for (session, filter) in filters.iter().enumerate() {
                trie.remove(filter, session);
            }
            prop_assert_eq!(trie.len(), 1, "only the root is left");
        }
    }

    #[test]
    fn a_lookup_costs_what_is_subscribed_to_and_not_what_the_topic_is_long() {
        let mut trie = Trie::default();
        for n in 0..200 {
            trie.insert(&format!("{}#", "+/".repeat(n)), n, PLAIN);
        }
        assert_eq!(sessions(&mut trie, &"/".repeat(65_535)).len(), 200);
        assert_eq!(trie.len(), 200);
    }

    #[test]
    fn mqtt_4_8_2_each_message_goes_to_one_of_a_group_in_turn_and_to_one_that_is_there() {
        let mut trie = Trie::default();
        for session in 0..3 {
            trie.insert("$share/g/a/#", session, PLAIN);
        }
        trie.insert("$share/h/a/#", 9, PLAIN);
        let mut found = Vec::new();
        let mut turn = |ready: &dyn Fn(usize) -> bool| {
            trie.matches("a/b", &mut found, Pick { ready, elsewhere: &|_| false });
            assert_eq!(found.len(), 2);
            found[0].session
        };
        assert_eq!([turn(&|_| true), turn(&|_| true), turn(&|_| true), turn(&|_| true)], [0, 1, 2, 0]);
        assert_eq!([turn(&|n| n != 1), turn(&|n| n != 1), turn(&|_| false)], [2, 0, 1]);
        assert_eq!(trie.members("$share/g/a/#"), [0, 1, 2]);
        assert!(trie.members("$share/g/a").is_empty() && trie.members("a/#").is_empty());
        trie.matches("a/b", &mut Vec::new(), Pick { ready: &|_| true, elsewhere: &|_| true });
        assert_eq!(trie.turn("$share/g/a/#", &|n| n != 2).map(|one| one.session), Some(0));
        trie.remove("$share/g/a/#", 0);
        trie.remove("$share/g/a/#", 1);
        trie.remove("$share/h/a/#", 9);
        assert_eq!(sessions(&mut trie, "a/b"), [2].into());
    }

    #[test]
    fn mqtt_3_3_4_overlapping_subscriptions_are_one_copy_at_the_highest_quality_with_all_identifiers() {
        let of = |session, qos, id| Match { session, options: Options { qos, id, ..PLAIN }, shared: false };
        let mut found = vec![
            of(1, Qos::AtMostOnce, 0),
            of(2, Qos::AtMostOnce, 7),
            Match { shared: true, ..of(2, Qos::AtMostOnce, 9) },
            of(1, Qos::ExactlyOnce, 0),
            of(2, Qos::AtLeastOnce, 8),
        ];
        sort(&mut found, None);
        let deliveries: Vec<_> = found.chunk_by(is_one_copy).filter_map(delivery).collect();
        let of = |session, qos, ids: &[u32]| Delivery {
            session,
            qos,
            retain_as_published: false,
            ids: Some(ids).filter(|ids| !ids.is_empty()).map(Into::into),
        };
        let expected =
            [of(1, Qos::ExactlyOnce, &[]), of(2, Qos::AtLeastOnce, &[7, 8]), of(2, Qos::AtMostOnce, &[9])];
        assert_eq!(deliveries, expected);
    }

    #[test]
    fn mqtt_3_8_3_3_no_local_keeps_a_clients_own_messages_from_it() {
        let own = Match { session: 1, options: Options { no_local: true, ..PLAIN }, shared: false };
        let mut found = vec![own, Match { session: 2, ..own }];
        sort(&mut found, Some(1));
        assert_eq!(found, [Match { session: 2, ..own }]);
    }
}
