//! Questions put to the hash table, and the callers that wait for their answers.
//!
//! Answers are matched to questions by query id. What promises that something is kept waits until the
//! disk has it. Never talks to the network: kad does.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::channel::oneshot;
use libp2p::{
    Multiaddr, PeerId,
    kad::{self, GetClosestPeersError, GetProvidersOk, GetRecordOk, PutRecordError, QueryId, QueryResult},
};

use super::{
    command::{Reply, Stored},
    error::Error,
};
use crate::{
    store::{Sequence, Store},
    transport::multiaddr::split_peer,
};

/// A question under way.
pub(crate) enum Query {
    Put {
        reply: Reply<Stored>,
        quorum: usize,
        /// Where the store stood with the record in it.
        sequence: Sequence,
        /// Bytes of the record.
        bytes: usize,
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
    /// `known`: where our own table has it. A peer that answers for itself tells no addresses.
    FindPeer {
        reply: Reply<Vec<Multiaddr>>,
        peer: PeerId,
        known: Vec<Multiaddr>,
    },
}

/// A promise that can be made when the disk has kept it.
enum Promise {
    Stored(Reply<Stored>, Stored),
    Done(Reply<()>),
}

/// The questions under way.
#[derive(Default)]
pub(crate) struct Queries {
    asked: HashMap<QueryId, Query>,
    promises: Vec<(Sequence, Promise)>,
}

impl Queries {
    pub(crate) fn len(&self) -> usize {
        self.asked.len() + self.promises.len()
    }

    pub(crate) fn insert(&mut self, id: QueryId, query: Query) {
        self.asked.insert(id, query);
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

    /// Takes in what kad found out; says whether the query has all it wanted and can be ended.
    pub(crate) fn on_progress(&mut self, id: QueryId, result: QueryResult, last: bool) -> bool {
        let Some(query) = self.asked.remove(&id) else {
            return false; // one of kad's own
        };
        let Some(more) = answer(query, result, last, &mut self.promises) else {
            return !last;
        };
        self.asked.insert(id, more);
        false
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
        (Query::Put { reply, quorum, sequence, bytes }, QueryResult::PutRecord(result)) => {
            let stored = match result {
                Ok(_) => Ok(Stored { confirmed: quorum }),
                Err(
                    PutRecordError::QuorumFailed { success, .. } | PutRecordError::Timeout { success, .. },
                ) => {
                    // kad counts against the replication factor; there may be fewer nodes than that.
                    let confirmed = success.len();
                    if confirmed >= quorum {
                        Ok(Stored { confirmed })
                    } else {
                        Err(Error::Quorum { confirmed, wanted: quorum, bytes })
                    }
                }
            };
            match stored {
                Ok(stored) => promises.push((sequence, Promise::Stored(reply, stored))),
                Err(error) => return send(reply, Err(error)),
            }
            None
        }
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
