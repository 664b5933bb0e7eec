//! Puts: which nodes a record is handed to, and when.

use std::{borrow::Cow, num::NonZeroUsize, time::Instant};

use libp2p::{
    PeerId,
    kad::{self, RecordKey, store::RecordStore},
};

use super::{EventLoop, answer, commands::not_stored};
use crate::node::{
    command::{Reply, Stored},
    puts::{MAX_SEARCHES, PutId, asked_first},
    queries::Query,
};

impl EventLoop {
    /// Stores `record` here, hands it to the connected peers nearest to its key, and beside that looks for those closest to it.
    pub(super) fn put(&mut self, record: kad::Record, quorum: usize, reply: Reply<Stored>) {
        let replication = self.config.kad.replication.get();
        let most = asked_first(quorum, self.table_size(), replication);
        let nearest = self.connected_near(&record.key, most);
        let (key, bytes) = (record.key.to_vec(), record.key.as_ref().len() + record.value.len());
        let record = kad::Record { publisher: Some(*self.swarm.local_peer_id()), ..record };
        let kad = &mut self.swarm.behaviour_mut().kad;
        let (stored, enough) = if nearest.is_empty() {
            let enough = quorum.clamp(1, replication);
            (kad.put_record(record, n(enough)), enough)
        } else {
            let enough = quorum.clamp(1, nearest.len());
            let stored = kad.store_mut().put(record.clone());
            let hand = |()| kad.put_record_to(record, nearest.clone().into_iter(), n(enough));
            (stored.map(hand), enough)
        };
        let copies = match stored {
            Ok(copies) => copies,
            Err(e) => return answer(reply, Err(not_stored(&e, kad.store_mut(), &self.config.kad))),
        };
        let put = self.queries.begin_put(reply, quorum, kad.store_mut().sequence(), bytes);
        self.queries.insert(copies, Query::Copies { put, enough });
        if !nearest.is_empty() && self.queries.searches() < MAX_SEARCHES {
            let search = kad.get_closest_peers(key.clone());
            self.queries.insert(search, Query::Closest { put, key, asked: nearest });
        }
    }

    /// Hands the record of a put to those who were found to be closest to its key. If another has taken its place
    /// meanwhile, that stays there, too.
    pub(super) fn copy(&mut self, put: PutId, key: Vec<u8>, peers: Vec<PeerId>, enough: usize) {
        let local = *self.swarm.local_peer_id();
        let kad = &mut self.swarm.behaviour_mut().kad;
        let record = kad.store_mut().get(&RecordKey::from(key)).map(Cow::into_owned);
        let is_ours = |held: &kad::Record| held.publisher == Some(local) && !held.is_expired(Instant::now());
        if let Some(record) = record.filter(is_ours) {
            let copies = kad.put_record_to(record, peers.into_iter(), n(enough));
            self.queries.insert(copies, Query::Copies { put, enough });
        }
        self.queries.search_over(put);
    }

    /// Of the connected peers of the table, at most so many, those nearest to `key` first.
    fn connected_near(&mut self, key: &RecordKey, most: usize) -> Vec<PeerId> {
        let key = kad::KBucketKey::new(key.to_vec());
        let near = self.swarm.behaviour_mut().kad.get_closest_local_peers(&key);
        let near: Vec<_> = near.map(|key| key.into_preimage()).collect();
        near.into_iter().filter(|peer| self.swarm.is_connected(peer)).take(most).collect()
    }
}

fn n(n: usize) -> kad::Quorum {
    NonZeroUsize::new(n).map_or(kad::Quorum::One, kad::Quorum::N)
}
