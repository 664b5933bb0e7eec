//! Questions put to the hash table, and the callers that wait for their answers.
//!
//! Answers are matched to questions by query id. What promises that something is kept waits until the
//! disk has it. Never talks to the network: kad does.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use futures::channel::oneshot;
use libp2p::{
    Multiaddr, PeerId,
    kad::{self, GetClosestPeersError, GetProvidersOk, GetRecordOk, PutRecordError, QueryId, QueryResult},
};

use super::{
    command::{Reply, Stored},
    error::Error,
    puts::{PutId, Puts},
};
use crate::{
    store::{Sequence, Store},
    transport::multiaddr::split_peer,
};

/// A question under way.
pub(crate) enum Query {
    /// A record is handed to peers; as many as are `enough` end it.
    Copies {
        put: PutId,
        enough: usize,
    },
    /// The peers closest to the key of a put are looked for, beside those that are `asked` to keep it already.
    Closest {
        put: PutId,
        key: Vec<u8>,
        asked: Vec<PeerId>,
    },
    Get {
        reply: Reply<Vec<u8>>,
        quorum: usize,
        found: Vec<Vec<u8>>,
    },
    Provide {
        reply: Reply<()>,
        sequence: Sequence,
    },
    Providers {
        reply: Reply<Vec<PeerId>>,
        found: BTreeSet<PeerId>,
    },
    /// A peer that is dialed where it is found to be, and perhaps pinged.
    Reach {
        peer: PeerId,
        ping: Option<Reply<Duration>>,
    },
    /// The subscribers of a topic are looked for, or this node is announced as one.
    Topic {
        topic: String,
        lookup: Lookup,
    },
    /// `known`: where our own table has it. A peer that answers for itself tells no addresses.
    FindPeer {
        reply: Reply<Vec<Multiaddr>>,
        peer: PeerId,
        known: Vec<Multiaddr>,
    },
}

/// What the hash table is asked of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lookup {
    Subscribers,
    Announcement,
}

impl Query {
    /// The put that it is a part of.
    fn put(&self) -> Option<PutId> {
        match self {
            Self::Copies { put, .. } | Self::Closest { put, .. } => Some(*put),
            _ => None,
        }
    }
}

/// A promise that can be made when the disk has kept it.
pub(super) enum Promise {
    Stored(Reply<Stored>, Stored),
    Done(Reply<()>),
}

/// What kad's report on a question leads to.
#[derive(Debug)]
pub(crate) enum Next {
    Nothing,
    /// The query has all it wanted and can be ended.
    Finish,
    /// The record of a put is to be handed to `peers`, too, of which as many as are `enough` end it; with that the
    /// [search is over](Queries::search_over).
    Copy {
        put: PutId,
        key: Vec<u8>,
        peers: Vec<PeerId>,
        enough: usize,
    },
    /// These are said to follow a topic; there is more to come, unless it is the `last`.
    Topic {
        topic: String,
        lookup: Lookup,
        found: Vec<PeerId>,
        last: bool,
    },
    /// A peer was looked for, and may be found there.
    Reached {
        peer: PeerId,
        addresses: Vec<Multiaddr>,
        ping: Option<Reply<Duration>>,
    },
}

/// The questions under way.
#[derive(Default)]
pub(crate) struct Queries {
    asked: HashMap<QueryId, Query>,
    puts: Puts,
    promises: Vec<(Sequence, Promise)>,
}

impl Queries {
    /// How many callers wait.
    pub(crate) fn len(&self) -> usize {
        let waits = |query: &&Query| {
            query.put().is_none() && !matches!(query, Query::Topic { .. } | Query::Reach { ping: None, .. })
        };
        let others = self.asked.values().filter(waits).count();
        others + self.puts.waiting() + self.promises.len()
    }

    pub(crate) fn insert(&mut self, id: QueryId, query: Query) {
        if let Some(put) = query.put() {
            self.puts.open(put);
        }
        self.asked.insert(id, query);
    }

    /// Begins a put of a record of `bytes`, which is in the store at `sequence`. It is over with the last of its queries.
    pub(crate) fn begin_put(
        &mut self,
        reply: Reply<Stored>,
        quorum: usize,
        sequence: Sequence,
        bytes: usize,
    ) -> PutId {
        self.puts.begin(reply, quorum, sequence, bytes)
    }

    /// Whether the hash table is still asked this of a topic.
    pub(crate) fn looks_for(&self, topic: &str, what: Lookup) -> bool {
        let asks = |query: &Query| matches!(query, Query::Topic { topic: of, lookup } if of == topic && *lookup == what);
        self.asked.values().any(asks)
    }

    /// How many puts look for the peers closest to their keys.
    pub(crate) fn searches(&self) -> usize {
        self.asked.values().filter(|query| matches!(query, Query::Closest { .. })).count()
    }

    /// The search for the peers closest to the key of a put is over, and has led to whatever it leads to.
    pub(crate) fn search_over(&mut self, put: PutId) {
        self.puts.close(put, 0, &mut self.promises);
    }

    /// Says "done" when the disk has what the store held at `sequence`.
    pub(crate) fn promise(&mut self, sequence: Sequence, reply: Reply<()>) {
        self.promises.push((sequence, Promise::Done(reply)));
    }

    /// Makes the promises that the disk has kept, and takes back those that it will not keep soon.
    pub(crate) fn settle(&mut self, store: &Store) {
        let trouble = store.trouble();
        let due = |sequence: Sequence| trouble.is_some() || store.is_durable(sequence);
        for (sequence, promise) in self.promises.extract_if(.., |(sequence, _)| due(*sequence)) {
            let safe = match trouble {
                Some(why) if !store.is_durable(sequence) => {
                    Err(Error::Store(format!("not on the disk: {why}")))
                }
                _ => Ok(()),
            };
            let _ = match promise {
                Promise::Stored(reply, stored) => send(reply, safe.map(|()| stored)),
                Promise::Done(reply) => send(reply, safe),
            };
        }
    }

    /// Takes in what kad found out.
    pub(crate) fn on_progress(&mut self, id: QueryId, result: QueryResult, last: bool) -> Next {
        let Some(query) = self.asked.remove(&id) else {
            return Next::Nothing; // one of kad's own
        };
        match (query, result) {
            (Query::Copies { put, enough }, QueryResult::PutRecord(result)) => {
                let confirmed = match result {
                    Ok(_) => enough,
                    Err(
                        PutRecordError::QuorumFailed { success, .. }
                        | PutRecordError::Timeout { success, .. },
                    ) => success.len(),
                };
                self.puts.close(put, confirmed, &mut self.promises);
                Next::Nothing
            }
            (Query::Closest { put, key, asked }, QueryResult::GetClosestPeers(result)) if last => {
                let found = match result {
                    Ok(found) => found.peers,
                    Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                let ids = found.into_iter().map(|found| found.peer_id);
                let peers: Vec<_> = ids.filter(|peer| !asked.contains(peer)).collect();
                if peers.is_empty() {
                    self.search_over(put);
                    return Next::Nothing;
                }
                // Who is answered already does not wait: all are to have it.
                let enough = self.puts.missing(put).unwrap_or(peers.len()).clamp(1, peers.len());
                Next::Copy { put, key, peers, enough }
            }
            (Query::Reach { peer, ping }, QueryResult::GetClosestPeers(result)) if last => {
                let found = match result {
                    Ok(found) => found.peers,
                    Err(GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                let found = found.into_iter().find(|found| found.peer_id == peer);
                Next::Reached { peer, addresses: found.map(|found| found.addrs).unwrap_or_default(), ping }
            }
            (Query::Topic { topic, lookup }, result) => {
                let found = match result {
                    QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                        providers.into_iter().collect()
                    }
                    _ => Vec::new(),
                };
                if !last {
                    self.asked.insert(id, Query::Topic { topic: topic.clone(), lookup });
                }
                Next::Topic { topic, lookup, found, last }
            }
            (query, result) => match answer(query, result, last, &mut self.promises) {
                Some(more) => {
                    self.asked.insert(id, more);
                    Next::Nothing
                }
                None if last => Next::Nothing,
                None => Next::Finish,
            },
        }
    }
}

/// Answers a query if that is possible now, or gives it back to wait for more.
fn answer(
    query: Query,
    result: QueryResult,
    last: bool,
    promises: &mut Vec<(Sequence, Promise)>,
) -> Option<Query> {
    match (query, result) {
        (Query::Get { reply, quorum, mut found }, QueryResult::GetRecord(result)) => {
            match result {
                Ok(GetRecordOk::FoundRecord(record)) => found.push(record.record.value),
                Ok(GetRecordOk::FinishedWithNoAdditionalRecord { .. }) | Err(_) => {}
            }
            if found.len() < quorum && !last {
                return Some(Query::Get { reply, quorum, found });
            }
            let answer = if found.len() >= quorum {
                most_common(found).ok_or_else(|| Error::NotFound("no node has a record of this key".into()))
            } else if found.is_empty() {
                Err(Error::NotFound("no node that was asked has a record of this key".into()))
            } else {
                Err(Error::Quorum { confirmed: found.len(), wanted: quorum, bytes: 0 })
            };
            send(reply, answer)
        }
        (Query::Provide { reply, sequence }, QueryResult::StartProviding(result)) => {
            match result {
                Ok(_) => promises.push((sequence, Promise::Done(reply))),
                Err(e) => return send(reply, Err(Error::TimedOut(e.to_string()))),
            }
            None
        }
        (Query::Providers { reply, mut found }, QueryResult::GetProviders(result)) => {
            let failed = match result {
                Ok(GetProvidersOk::FoundProviders { providers, .. }) => {
                    found.extend(providers);
                    None
                }
                Ok(GetProvidersOk::FinishedWithNoAdditionalRecord { .. }) => None,
                Err(e) => Some(Error::TimedOut(e.to_string())),
            };
            if !last {
                return Some(Query::Providers { reply, found });
            }
            let answer = match failed {
                Some(error) if found.is_empty() => Err(error),
                _ => Ok(found.into_iter().collect()),
            };
            send(reply, answer)
        }
        (Query::FindPeer { reply, peer, known }, QueryResult::GetClosestPeers(result)) => {
            if !last {
                return Some(Query::FindPeer { reply, peer, known });
            }
            let (peers, late) = match result {
                Ok(found) => (found.peers, false),
                Err(GetClosestPeersError::Timeout { peers, .. }) => (peers, true),
            };
            let answer = match peers.into_iter().find(|p| p.peer_id == peer) {
                Some(found) => {
                    let addresses: BTreeSet<_> =
                        found.addrs.into_iter().chain(known).map(|a| split_peer(a).0).collect();
                    Ok(addresses.into_iter().collect())
                }
                None if late => Err(Error::TimedOut(format!("looking for {peer}"))),
                None => Err(Error::NotFound(format!("no node that was asked knows {peer}"))),
            };
            send(reply, answer)
        }
        // kad answers each query with its own kind of result: nothing else can arrive.
        (query, _) => Some(query),
    }
}

fn send<T>(reply: oneshot::Sender<T>, answer: T) -> Option<Query> {
    let _ = reply.send(answer);
    None
}

/// The value that most nodes hold; of two equally common ones, that found first.
fn most_common(found: Vec<Vec<u8>>) -> Option<Vec<u8>> {
    let mut counts: BTreeMap<&[u8], usize> = BTreeMap::new();
    for value in &found {
        *counts.entry(value).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    found.iter().find(|v| counts.get(v.as_slice()) == Some(&most)).cloned()
}

/// How many other nodes have to confirm a record when there are `others` in the table and at most
/// `replication` are asked. Where nobody is there, nobody has to, unless a number says otherwise: what asks
/// for less never wants more.
pub(crate) fn quorum(quorum: kad::Quorum, others: usize, replication: usize) -> usize {
    let total = others.min(replication);
    match quorum {
        kad::Quorum::One => total.min(1),
        kad::Quorum::Majority if total == 0 => 0,
        kad::Quorum::Majority => total / 2 + 1,
        kad::Quorum::All => total,
        kad::Quorum::N(n) => n.get(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;

    #[test]
    fn the_value_that_most_nodes_hold_wins() {
        let value = |v: &[&str]| most_common(v.iter().map(|v| v.as_bytes().to_vec()).collect());
        assert_eq!(value(&["a", "b", "b"]), Some(b"b".to_vec()));
        assert_eq!(value(&["b", "a"]), Some(b"b".to_vec()), "the first of two equally common ones");
        assert_eq!(value(&[]), None);
    }

    #[test]
    fn a_quorum_counts_the_nodes_that_there_are() {
        let n = |n| kad::Quorum::N(NonZeroUsize::new(n).unwrap());
        for (wanted, others, replication, expected) in [
            (kad::Quorum::Majority, 2, 20, 2),
            (kad::Quorum::Majority, 3, 20, 2),
            (kad::Quorum::Majority, 100, 20, 11),
            (kad::Quorum::Majority, 0, 20, 0),
            (kad::Quorum::All, 2, 20, 2),
            (kad::Quorum::All, 100, 20, 20),
            (kad::Quorum::One, 0, 20, 0),
            (kad::Quorum::One, 5, 20, 1),
            (n(1), 0, 20, 1),
            (n(3), 1, 20, 3),
        ] {
            assert_eq!(quorum(wanted, others, replication), expected, "{wanted:?} of {others}");
        }
    }
}
