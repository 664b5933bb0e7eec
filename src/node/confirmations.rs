//! Publishes whose messages others are to confirm, until that is over for all of them. Pure.

use std::{collections::HashMap, time::Duration};

use super::{
    catchup::{Confirmed, Ticket},
    error::Error,
    pending_publishes::Outcome,
};

/// A publish whose messages went out, with `T` for who waits for their outcomes.
#[derive(Debug)]
struct Waiting<T> {
    waiter: T,
    outcomes: Vec<Outcome>,
    /// Which outcomes hang on which message. A bundle is one message.
    tickets: HashMap<Ticket, Vec<usize>>,
    wanted: usize,
    patience: Duration,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Confirmations<T> {
    waiting: HashMap<u64, Waiting<T>>,
    owners: HashMap<Ticket, u64>,
    /// Over before all messages of their publish went out.
    early: HashMap<Ticket, Confirmed>,
    last: u64,
}

/// What a publish asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) count: usize,
    /// How long all of it was to take.
    pub(crate) patience: Duration,
}

impl<T> Default for Confirmations<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), owners: HashMap::new(), early: HashMap::new(), last: 0 }
    }
}

impl<T> Confirmations<T> {
    /// Messages that are waited for.
    pub(crate) fn len(&self) -> usize {
        self.owners.len()
    }

    /// All messages of a publish went out, or failed. Gives it back if nothing is to be waited for.
    pub(crate) fn wait(
        &mut self,
        waiter: T,
        outcomes: Vec<Outcome>,
        tickets: Vec<(usize, Ticket)>,
        wanted: Wanted,
    ) -> Option<(T, Vec<Outcome>)> {
        let Wanted { count, patience } = wanted;
        let mut by_ticket: HashMap<Ticket, Vec<usize>> = HashMap::new();
        for (index, ticket) in tickets {
            by_ticket.entry(ticket).or_default().push(index);
        }
        let early: Vec<_> = by_ticket.keys().filter_map(|ticket| self.early.remove(ticket)).collect();
        let mut waiting = Waiting { waiter, outcomes, tickets: by_ticket, wanted: count, patience };
        early.into_iter().for_each(|confirmed| waiting.note(confirmed));
        if waiting.tickets.is_empty() {
            return Some((waiting.waiter, waiting.outcomes));
        }
        self.last += 1;
        self.owners.extend(waiting.tickets.keys().map(|ticket| (*ticket, self.last)));
        self.waiting.insert(self.last, waiting);
        None
    }

    /// A message is confirmed, or has no more time; gives back the publish that this was the last one of.
    pub(crate) fn note(&mut self, confirmed: Confirmed) -> Option<(T, Vec<Outcome>)> {
        let Some(owner) = self.owners.remove(&confirmed.ticket) else {
            self.early.insert(confirmed.ticket, confirmed);
            return None;
        };
        let waiting = self.waiting.get_mut(&owner)?;
        waiting.note(confirmed);
        if !waiting.tickets.is_empty() {
            return None;
        }
        self.waiting.remove(&owner).map(|waiting| (waiting.waiter, waiting.outcomes))
    }
}

impl<T> Waiting<T> {
    fn note(&mut self, Confirmed { ticket, by, enough }: Confirmed) {
        for index in self.tickets.remove(&ticket).into_iter().flatten() {
            let Some(Ok(receipt)) = self.outcomes.get_mut(index) else { continue };
            if enough {
                receipt.confirmed.clone_from(&by);
                continue;
            }
            let (id, wanted, waited) = (receipt.id.clone(), self.wanted, self.patience);
            self.outcomes[index] = Err(Error::Unconfirmed { id, by: by.clone(), wanted, waited });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use libp2p::PeerId;
    use smidge_catchup::Item;

    use super::*;
    use crate::node::event::Receipt;

    fn outcomes(count: usize) -> Vec<Outcome> {
        (0..count).map(|n| Ok(Receipt { id: n.to_string(), ..Receipt::to_nobody() })).collect()
    }

    fn tickets(count: u64) -> Vec<Ticket> {
        let (mut confirms, now) = (crate::node::catchup::confirms(), Instant::now());
        (0..count).map(|n| confirms.add("t", Item::at(n), 1, now, now)).collect()
    }

    #[test]
    fn a_publish_is_answered_when_the_last_of_its_messages_is_confirmed_or_late() {
        let (mut all, wanted) =
            (Confirmations::default(), Wanted { count: 1, patience: Duration::from_secs(5) });
        let (tickets, peer) = (tickets(3), PeerId::random());
        let confirmed = |n: usize| Confirmed { ticket: tickets[n], by: vec![peer], enough: true };
        // The first is confirmed before the last went out, and two are in one bundle.
        assert_eq!(all.note(confirmed(0)), None::<((), _)>);
        let of = vec![(0, tickets[0]), (1, tickets[1]), (2, tickets[1]), (3, tickets[2])];
        assert_eq!(all.wait((), outcomes(4), of, wanted), None);
        assert_eq!(all.note(confirmed(1)), None);
        assert_eq!(all.len(), 1);
        let late = Confirmed { ticket: tickets[2], by: vec![], enough: false };
        let ((), outcomes) = all.note(late).unwrap();
        assert!(outcomes[..3].iter().all(|outcome| outcome.as_ref().unwrap().confirmed == [peer]));
        let error = Error::Unconfirmed { id: "3".into(), by: vec![], wanted: 1, waited: wanted.patience };
        assert_eq!(outcomes[3], Err(error));
        assert_eq!((all.len(), all.waiting.len(), all.early.len()), (0, 0, 0));
    }

    #[test]
    fn what_failed_before_is_left_as_it_is() {
        let (mut all, wanted) = (Confirmations::default(), Wanted { count: 1, patience: Duration::ZERO });
        let failed = vec![Err(Error::Duplicate)];
        assert_eq!(all.wait((), failed.clone(), Vec::new(), wanted), Some(((), failed)));
    }
}
