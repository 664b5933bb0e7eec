//! What kad dials to refresh its table, where a node is connected to few of many: a few of those that are closest to it, which come first.
//! Each lookup of a refresh would connect it to twenty others, for each distance, and each of these would do the same.

use std::time::{Duration, Instant};

use libp2p::{
    kad::QueryInfo,
    swarm::{DialError, DialFailure, FromSwarm, NetworkBehaviour, dial_opts::DialOpts},
};

use super::Behaviour;
use crate::runtime;

/// As many are dialed in this time.
const DIALS: u32 = 8;
const WITHIN: Duration = Duration::from_secs(60);

/// Dials that refreshes made, where that is counted.
#[derive(Debug, Default)]
pub(super) struct Refreshes {
    is_sparse: bool,
    dials: u32,
    since: Option<Instant>,
}

impl Refreshes {
    /// Whether one more is made.
    fn take(&mut self, now: Instant) -> bool {
        if !self.is_sparse {
            return true;
        }
        if self.since.is_none_or(|since| since + WITHIN <= now) {
            (self.since, self.dials) = (Some(now), 0);
        }
        self.dials += 1;
        self.dials <= DIALS
    }
}

impl Behaviour {
    /// Whether this node is to be connected to few of many.
    pub(crate) fn set_sparse(&mut self, is_sparse: bool) {
        self.refreshes.is_sparse = is_sparse;
    }

    /// Whether a dial is left out, as nothing but a refresh asks for it; kad goes on with the next.
    pub(super) fn leaves_out(&mut self, dial: &DialOpts) -> bool {
        let is_refresh = |info: &QueryInfo| matches!(info, QueryInfo::Bootstrap { .. });
        if !self.inner.iter_queries().all(|query| is_refresh(query.info()))
            || self.refreshes.take(runtime::now())
        {
            return false;
        }
        self.inner.on_swarm_event(FromSwarm::DialFailure(DialFailure {
            peer_id: dial.get_peer_id(),
            error: &DialError::Aborted,
            connection_id: dial.connection_id(),
        }));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_neighbours_are_few_a_minute_of_refreshes_dials_a_few() {
        let now = Instant::now();
        let mut refreshes = Refreshes::default();
        let taken = |refreshes: &mut Refreshes, now| (0..100).filter(|_| refreshes.take(now)).count();
        assert_eq!(taken(&mut refreshes, now), 100, "all are neighbours");
        refreshes.is_sparse = true;
        assert_eq!(taken(&mut refreshes, now), DIALS as usize);
        assert_eq!(taken(&mut refreshes, now + WITHIN / 2), 0);
        assert_eq!(taken(&mut refreshes, now + WITHIN), DIALS as usize);
    }
}
