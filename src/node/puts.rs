//! Puts under way, each of one query of kad or of several side by side, and when their callers are answered.
//!
//! A put is answered when as many as its quorum have confirmed the record, or nobody is left who might. Who is connected
//! and near its key is asked first, and nobody waits for the search for closer ones: what peers claim
//! there is dialed, and anybody can make peers up. Never talks to the network, and never looks at a clock.

use std::collections::HashMap;

use super::{
    command::{Reply, Stored},
    error::Error,
    queries::Promise,
};
use crate::store::Sequence;

/// Searches for the peers closest to the keys of puts, side by side. They take long where strangers make peers up; a put
/// above this has the peers that are connected, and those closest when records are handed on, in the hour.
pub(super) const MAX_SEARCHES: usize = 32;
/// Peers that are asked to keep a record beside those that lie closest, where one confirmation was wanted and the table has more
/// than are to keep it: as many as kad asks side by side.
const NEAREST: usize = 3;

/// A put under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PutId(u64);

struct Put {
    /// Until it is answered.
    reply: Option<Reply<Stored>>,
    quorum: usize,
    confirmed: usize,
    /// Where the store stood with the record in it.
    sequence: Sequence,
    /// Bytes of the record.
    bytes: usize,
    /// Queries that are not over.
    open: usize,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Puts {
    puts: HashMap<PutId, Put>,
    last: u64,
}

impl Puts {
    pub(super) fn begin(
        &mut self,
        reply: Reply<Stored>,
        quorum: usize,
        sequence: Sequence,
        bytes: usize,
    ) -> PutId {
        self.last += 1;
        let put = Put { reply: Some(reply), quorum, confirmed: 0, sequence, bytes, open: 0 };
        self.puts.insert(PutId(self.last), put);
        PutId(self.last)
    }

    /// Notes that one more query is a part of `put`.
    pub(super) fn open(&mut self, put: PutId) {
        if let Some(put) = self.puts.get_mut(&put) {
            put.open += 1;
        }
    }

    /// How many callers wait.
    pub(super) fn waiting(&self) -> usize {
        self.puts.values().filter(|put| put.reply.is_some()).count()
    }

    /// How many more have to confirm; `None`: the caller does not wait.
    pub(super) fn missing(&self, put: PutId) -> Option<usize> {
        let put = self.puts.get(&put)?;
        put.reply.as_ref().map(|_| put.quorum.saturating_sub(put.confirmed))
    }

    /// Takes in the end of one of its queries, with what that adds to the confirmations. A put that has its quorum promises
    /// when the disk has the record; one that nobody is left to confirm fails.
    pub(super) fn close(&mut self, id: PutId, confirmed: usize, promises: &mut Vec<(Sequence, Promise)>) {
        let Some(put) = self.puts.get_mut(&id) else { return };
        put.open = put.open.saturating_sub(1);
        put.confirmed += confirmed;
        let (confirmed, wanted, bytes) = (put.confirmed, put.quorum, put.bytes);
        if confirmed >= wanted {
            let promise = |reply| Promise::Stored(reply, Stored { confirmed });
            promises.extend(put.reply.take().map(|reply| (put.sequence, promise(reply))));
        }
        if put.open == 0 {
            if let Some(reply) = put.reply.take() {
                let _ = reply.send(Err(Error::Quorum { confirmed, wanted, bytes }));
            }
            self.puts.remove(&id);
        }
    }
}

/// How many of the connected peers nearest to a key are asked to keep its record before the closest of all are known, where
/// there are `others` in the table and `replication` of all are to keep it. Of a small table, all are; of a larger one,
/// others may be closer, and are waited for unless any will do.
pub(super) fn asked_first(quorum: usize, others: usize, replication: usize) -> usize {
    match others <= replication {
        true => replication,
        false if quorum <= 1 => NEAREST,
        false => 0,
    }
}

#[cfg(test)]
mod tests {
    use futures::channel::oneshot;

    use super::*;

    type Answer = oneshot::Receiver<Result<Stored, Error>>;

    fn put(puts: &mut Puts, quorum: usize, queries: usize) -> (PutId, Answer) {
        let (reply, answer) = oneshot::channel();
        let id = puts.begin(reply, quorum, Sequence::default(), 9);
        (0..queries).for_each(|_| puts.open(id));
        (id, answer)
    }

    #[test]
    fn a_put_is_answered_when_its_quorum_is_there_and_not_before_nor_later() {
        let (mut puts, mut promises) = (Puts::default(), Vec::new());
        let (id, mut answer) = put(&mut puts, 3, 2);
        puts.close(id, 2, &mut promises);
        assert!(promises.is_empty());
        assert_eq!((puts.missing(id), puts.waiting()), (Some(1), 1));
        // The search was over, and led to another query.
        puts.open(id);
        puts.close(id, 1, &mut promises);
        let [(_, Promise::Stored(_, stored))] = &promises[..] else { panic!("not promised") };
        assert_eq!(stored.confirmed, 3);
        assert_eq!((puts.missing(id), puts.waiting(), puts.puts.len()), (None, 0, 1), "it goes on");
        puts.close(id, 4, &mut promises);
        assert_eq!((puts.puts.len(), promises.len()), (0, 1), "answered once, and over");
        assert!(matches!(answer.try_recv(), Ok(None)), "the disk is waited for");
    }

    #[test]
    fn a_put_that_nobody_is_left_to_confirm_fails_with_what_there_was() {
        let (mut puts, mut promises) = (Puts::default(), Vec::new());
        let (id, mut answer) = put(&mut puts, 3, 2);
        puts.close(id, 1, &mut promises);
        assert!(matches!(answer.try_recv(), Ok(None)), "the other query may bring the rest");
        puts.close(id, 1, &mut promises);
        let Ok(Some(Err(Error::Quorum { confirmed: 2, wanted: 3, bytes: 9 }))) = answer.try_recv() else {
            panic!("not refused")
        };
        assert!(promises.is_empty() && puts.puts.is_empty());
    }

    #[test]
    fn a_quorum_of_nobody_is_there_with_the_first_query() {
        let (mut puts, mut promises) = (Puts::default(), Vec::new());
        let (id, _answer) = put(&mut puts, 0, 1);
        puts.close(id, 0, &mut promises);
        assert_eq!(promises.len(), 1);
    }

    #[test]
    fn who_is_asked_first_is_who_is_to_keep_it_or_whoever_may() {
        for (quorum, others, expected) in
            [(1, 3, 20), (11, 20, 20), (0, 0, 20), (1, 21, NEAREST), (2, 21, 0), (11, 500, 0)]
        {
            assert_eq!(asked_first(quorum, others, 20), expected, "{quorum} of {others}");
        }
    }
}
