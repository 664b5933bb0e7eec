//! Which records of a large name a node holds: a few of them, such that the graph of all nodes is connected, and is
//! again soon after many of them died.
//!
//! Rendezvous hashing over this node's identity and the record's address ranks the records; each node has a ranking of its
//! own, and it changes only where a record came or went. Half of the wanted neighbours are the first in that
//! ranking that can be hoped for: a random graph in which each node has chosen a few others is connected. The other half
//! are those that chose this node, and, where they are too few, the next in the ranking. A record that does not answer is
//! passed over, and tried again beside those that took its place.
//!
//! Pure: standings in, roles out. Never dials, and never gives up a connection.

use std::cmp::Reverse;

/// How many neighbours a node has behind one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbours {
    /// As many are wanted, those that dialed this node counted in.
    pub(crate) wanted: usize,
    /// A name with as many records, or fewer, is connected in full.
    pub(crate) full: usize,
}

impl Neighbours {
    /// As many does a node choose itself.
    pub(crate) fn chosen(&self) -> usize {
        self.wanted.div_ceil(2)
    }
}

/// How neighbours are looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quest {
    /// Those that dial this node have had time to.
    pub(crate) settled: bool,
    /// As many records are tried together while there are fewer neighbours than a node chooses.
    pub(crate) width: usize,
}

/// How a record stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is this very node.
    Own,
    /// Whoever dialed.
    Connected,
    /// Nothing is known against it: not dialed yet, or a moment ago.
    Hopeful,
    /// It does not answer, after so many failures in a row.
    Doubtful(u32),
}

/// A record, as the planner sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    /// Its place in this node's ranking, the highest first ([`weight`]).
    pub(crate) weight: u64,
    pub(crate) standing: Standing,
}

/// What a record is to this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Known, and dialed when it is needed.
    Spare,
    /// Connected, and not one of those that are chosen: it is not dialed again.
    Connected,
    /// Beside the chosen ones, as too few nodes chose this one.
    More,
    /// Would be chosen, and does not answer.
    Retried,
    /// One of the first in the ranking.
    Chosen,
    /// The name is connected in full.
    #[default]
    All,
}

impl Role {
    /// Whether it is dialed.
    pub(crate) fn is_held(self) -> bool {
        matches!(self, Self::More | Self::Retried | Self::Chosen | Self::All)
    }
}

/// The place of a record in a node's ranking. Both are hashes.
pub(crate) fn weight(identity: u64, record: u64) -> u64 {
    // The finalizer of SplitMix64.
    let mut mixed = (identity ^ record).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The role of each record of a name.
pub(crate) fn plan(entries: &[Entry], neighbours: Neighbours, quest: Quest) -> Vec<Role> {
    let is_other = |entry: &Entry| entry.standing != Standing::Own;
    let mut order: Vec<usize> = (0..entries.len()).filter(|n| is_other(&entries[*n])).collect();
    if order.len() <= neighbours.full {
        return vec![Role::All; entries.len()];
    }
    let rank = |n: &usize| (Reverse(entries[*n].weight), *n);
    // The first in the ranking are nearly always enough.
    let few = (8 * neighbours.wanted).max(2 * quest.width).max(64);
    if few < order.len() {
        order.select_nth_unstable_by_key(few, rank);
        order[..few].sort_unstable_by_key(rank);
        if let Some(roles) = assign(entries, &order[..few], neighbours, quest) {
            return roles;
        }
    }
    order.sort_unstable_by_key(rank);
    assign(entries, &order, neighbours, quest)
        .unwrap_or_else(|| retry_all(entries, &order, neighbours, quest))
}

fn is_good(entry: &Entry) -> bool {
    matches!(entry.standing, Standing::Connected | Standing::Hopeful)
}

/// The roles, unless there are too few in `order` that can be hoped for.
fn assign(entries: &[Entry], order: &[usize], neighbours: Neighbours, quest: Quest) -> Option<Vec<Role>> {
    let chosen: Vec<usize> = order.iter().copied().filter(|n| is_good(&entries[*n])).collect();
    let last = *chosen.get(neighbours.chosen().checked_sub(1)?)?;
    let mut roles = connected(entries);
    let before = order.iter().position(|n| *n == last).unwrap_or_default();
    retry(entries, &order[..before], neighbours.chosen(), &mut roles);
    let (first, rest) = chosen.split_at(neighbours.chosen());
    first.iter().for_each(|n| roles[*n] = Role::Chosen);
    // While most of the chosen ones are being dialed, so are those of others: this node may yet be chosen.
    let stand = first.iter().filter(|n| entries[**n].standing == Standing::Connected).count();
    let missing = if quest.settled && 2 * stand >= first.len() {
        let there = roles.iter().filter(|role| matches!(role, Role::Chosen | Role::Connected)).count();
        neighbours.wanted.saturating_sub(there)
    } else {
        0
    };
    let hopeful: Vec<_> = rest.iter().filter(|n| roles[**n] == Role::Spare).collect();
    let more = missing.max(beyond(entries, neighbours, quest));
    hopeful.into_iter().take(more).for_each(|n| roles[*n] = Role::More);
    Some(roles)
}

/// As many more than the chosen ones are tried, as too few answer.
fn beyond(entries: &[Entry], neighbours: Neighbours, quest: Quest) -> usize {
    let there = entries.iter().filter(|entry| entry.standing == Standing::Connected).count();
    if there < neighbours.chosen() { quest.width.saturating_sub(neighbours.chosen()) } else { 0 }
}

/// The roles where too few can be hoped for: those are held, and of the others those that failed least are tried.
fn retry_all(entries: &[Entry], order: &[usize], neighbours: Neighbours, quest: Quest) -> Vec<Role> {
    let mut roles = connected(entries);
    let count = neighbours.chosen() + beyond(entries, neighbours, quest);
    retry(entries, order, count, &mut roles);
    for n in order.iter().filter(|n| is_good(&entries[**n])).take(neighbours.chosen()) {
        roles[*n] = Role::Chosen;
    }
    roles
}

fn connected(entries: &[Entry]) -> Vec<Role> {
    let role = |entry: &Entry| match entry.standing {
        Standing::Connected => Role::Connected,
        // What leads to this node is asked again in its own time.
        Standing::Own => Role::All,
        Standing::Hopeful | Standing::Doubtful(_) => Role::Spare,
    };
    entries.iter().map(role).collect()
}

/// So many are tried again, those first that failed least.
fn retry(entries: &[Entry], order: &[usize], count: usize, roles: &mut [Role]) {
    let failures = |n: &usize| match entries[*n].standing {
        Standing::Doubtful(failures) => Some((failures, *n)),
        _ => None,
    };
    let mut doubtful: Vec<_> = order.iter().filter_map(failures).collect();
    doubtful.sort_by_key(|(failures, _)| *failures);
    for (_, n) in doubtful.into_iter().take(count) {
        roles[n] = Role::Retried;
    }
}

#[cfg(test)]
mod tests;
