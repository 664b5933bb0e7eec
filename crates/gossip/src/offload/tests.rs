use std::{future::Future, pin::Pin, sync::mpsc, thread};

use futures::task::noop_waker;
use libp2p::identity::Keypair;

use super::*;
use crate::{Authenticity, Author, MessageParts, Topic, WireMessage};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

fn author() -> Author {
    Author::new(Authenticity::Signed(Keypair::generate_ed25519()), 0)
}

/// A batch of so many, of which every third is forged.
fn batch(ticket: u64, count: usize, author: &mut Author) -> (Unverified, Vec<bool>) {
    let mut rng = fastrand::Rng::with_seed(ticket);
    let mut say = |n: usize| {
        let message = author.compose(&Topic::from("t"), &n.to_be_bytes(), &mut rng).unwrap();
        match n % 3 {
            0 => WireMessage::new(&MessageParts { data: Some(b"another"), ..message.parts() }),
            _ => message,
        }
    };
    let messages = (0..count).map(&mut say).collect();
    (Unverified { ticket, messages }, (0..count).map(|n| n % 3 != 0).collect())
}

/// An offload whose tasks wait in a channel until they are run.
fn elsewhere() -> (Offload, mpsc::Receiver<Task>) {
    let (tasks, run) = mpsc::channel();
    let mut offload = Offload::default();
    offload.set_executor(Box::new(move |task: Task| tasks.send(task).unwrap()));
    (offload, run)
}

fn sorted(mut done: Vec<Verified>) -> Vec<Verified> {
    done.sort();
    done
}

#[test]
fn without_an_executor_a_batch_is_done_when_it_was_given() {
    let (offload, mut author) = (Offload::default(), author());
    let (many, holds) = batch(0, 20, &mut author);
    offload.give(many);
    assert_eq!(offload.done(&noop_waker()), [(0, holds)]);
    assert_eq!(offload.take_done(), []);
}

#[test]
fn a_large_batch_goes_elsewhere_and_a_small_one_only_behind_it() {
    let ((offload, tasks), mut author) = (elsewhere(), author());
    let (few, few_hold) = batch(0, FEW - 1, &mut author);
    offload.give(few);
    assert_eq!(offload.done(&noop_waker()), [(0, few_hold)], "nobody is woken for so few");
    assert!(tasks.try_recv().is_err());
    let (many, many_hold) = batch(FEW as u64, 20, &mut author);
    let (behind, behind_hold) = batch(FEW as u64 + 20, 1, &mut author);
    offload.give(many);
    offload.give(behind);
    assert_eq!(offload.done(&noop_waker()), []);
    let task = tasks.try_recv().unwrap();
    assert!(tasks.try_recv().is_err(), "one task at a time");
    futures::executor::block_on(task);
    let done = sorted(offload.done(&noop_waker()));
    assert_eq!(done, [(FEW as u64, many_hold), (FEW as u64 + 20, behind_hold)]);
}

#[test]
fn what_no_task_has_come_to_is_checked_here_when_it_must_be() {
    let ((offload, tasks), mut author) = (elsewhere(), author());
    let (many, holds) = batch(0, 20, &mut author);
    offload.give(many);
    offload.finish();
    assert_eq!(offload.take_done(), [(0, holds)]);
    futures::executor::block_on(tasks.try_recv().unwrap());
    assert_eq!(offload.take_done(), []);
    let (next, holds) = batch(20, 20, &mut author);
    offload.give(next);
    futures::executor::block_on(tasks.try_recv().expect("the task before has ended"));
    assert_eq!(offload.take_done(), [(20, holds)]);
}

#[test]
fn every_batch_has_the_verdicts_of_its_own_messages_on_several_threads() {
    let ((offload, tasks), mut author) = (elsewhere(), author());
    let worker = thread::spawn(move || tasks.iter().for_each(futures::executor::block_on));
    let (mut ticket, mut expected, mut done) = (0, Vec::new(), Vec::new());
    for n in 0..50 {
        let (batch, holds) = batch(ticket, 1 + n % 9, &mut author);
        expected.push((ticket, holds));
        ticket += batch.messages.len() as u64;
        offload.give(batch);
        if n % 7 == 0 {
            offload.finish();
        }
        done.extend(offload.done(&noop_waker()));
    }
    offload.finish();
    done.extend(offload.take_done());
    drop(offload);
    worker.join().unwrap();
    assert_eq!(sorted(done), expected);
}
