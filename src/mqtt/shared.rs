//! The broker and what surrounds it, behind one lock that nobody holds while waiting.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures::task::AtomicWaker;
use smidge_mqtt::{Action, Broker, ConnectionId, Credentials, Qos, SessionId, TapId, Ticket, Verdict, mesh};

use super::kept::{Write, Writes};
use crate::runtime::Handle;

/// Bytes read from a client in one go.
const BUFFER: usize = 64 << 10;
/// Bytes that wait for the mesh before clients that publish are read no more.
const MESH_BYTES: usize = 1 << 20;

/// Messages of one plain topic, or of none, that go into the mesh together, and who waits for which of them.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) plain: Option<Arc<str>>,
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) tickets: Vec<(usize, Ticket)>,
}

/// What goes to the mesh.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// The gossip topic that it goes on as it is; `None`: `mqtt.topic`, in the broker's own form.
    pub(super) plain: Option<Arc<str>>,
    pub(super) data: Vec<u8>,
    /// Who waits for others to confirm it.
    pub(super) ticket: Option<Ticket>,
}

impl Batch {
    fn push(&mut self, Outgoing { data, ticket, .. }: Outgoing) {
        self.tickets.extend(ticket.map(|ticket| (self.messages.len(), ticket)));
        self.messages.push(data);
    }
}

/// What waits for the mesh, oldest first.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Outgoing>,
    bytes: usize,
    /// Connections that are not read until there is room.
    waiting: Vec<Arc<AtomicWaker>>,
}

pub(super) struct State {
    pub(super) broker: Broker,
    tasks: HashMap<ConnectionId, Arc<AtomicWaker>>,
    /// Of those who follow a filter (`local.rs`).
    pub(super) taps: HashMap<TapId, Arc<AtomicWaker>>,
    /// What is read is taken in before another reads: one buffer is enough for all.
    pub(super) buffer: Box<[u8]>,
    queue: Queue,
    pub(super) writes: Writes,
    /// What this node says of itself next.
    said: Option<Vec<u8>>,
    /// Sessions for which the memory is to be read; fewer than there are sessions.
    replays: Vec<(SessionId, u64)>,
    /// What the timer was set for.
    armed: Option<Instant>,
    users: Option<Arc<smidge_mqtt::Users>>,
}

/// What all tasks of the server share.
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) runtime: Handle,
    pub(super) plain: Vec<Arc<str>>,
    pub(super) write_timeout: Duration,
    /// Wakes the task that publishes.
    mesh: AtomicWaker,
    /// Wakes the task that writes what all nodes keep.
    writer: AtomicWaker,
    speaker: AtomicWaker,
    replayer: AtomicWaker,
    timer: AtomicWaker,
    timer_is_due: AtomicBool,
    pub(super) closing: AtomicBool,
    /// Messages that other nodes did not get.
    pub(super) not_carried: AtomicU64,
    /// Messages from other nodes that were lost or none.
    pub(super) not_heard: AtomicU64,
    /// Retained messages and sessions that are not kept by all nodes.
    pub(super) not_kept: AtomicU64,
    own: Weak<Self>,
}

/// The system's clock, in microseconds since 1970, and the runtime's.
pub(super) fn clock(runtime: &Handle) -> (Instant, u64) {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (runtime.now(), u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX))
}

impl Shared {
    pub(super) fn new(
        broker: Broker,
        users: Option<Arc<smidge_mqtt::Users>>,
        plain: Vec<Arc<str>>,
        write_timeout: Duration,
        runtime: Handle,
    ) -> Arc<Self> {
        let state = State {
            broker,
            tasks: HashMap::new(),
            taps: HashMap::new(),
            buffer: vec![0; BUFFER].into_boxed_slice(),
            queue: Queue::default(),
            writes: Writes::default(),
            said: None,
            replays: Vec::new(),
            armed: None,
            users,
        };
        Arc::new_cyclic(|own| Self {
            state: Mutex::new(state),
            runtime,
            plain,
            write_timeout,
            mesh: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            speaker: AtomicWaker::new(),
            replayer: AtomicWaker::new(),
            timer: AtomicWaker::new(),
            timer_is_due: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            not_carried: AtomicU64::new(0),
            not_heard: AtomicU64::new(0),
            not_kept: AtomicU64::new(0),
            own: own.clone(),
        })
    }

    /// The state as it is; nobody can have left it half changed.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `change` do something to the broker, and does what follows from it.
    pub(super) fn with<T>(&self, change: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = self.runtime.now();
        let mut state = self.state();
        let result = change(&mut state, now);
        self.act(&mut state, now);
        result
    }

    /// Does what the broker asks for.
    pub(super) fn act(&self, state: &mut State, now: Instant) {
        let (mut published, mut written) = (false, false);
        while let Some(action) = state.broker.next_action() {
            match action {
                Action::Wake(id) => {
                    if let Some(task) = state.tasks.get(&id) {
                        task.wake();
                    }
                }
                Action::Authenticate(id, credentials) => self.authenticate(state, id, credentials),
                Action::Tap(id) => {
                    if let Some(task) = state.taps.get(&id) {
                        task.wake();
                    }
                }
                Action::Keep { map, key, value } => {
                    if state.writes.push(map, key, value) {
                        self.not_kept.fetch_add(1, Ordering::Relaxed);
                    }
                    written = true;
                }
                Action::Say(said) => {
                    state.said = Some(said);
                    self.speaker.wake();
                }
                Action::Replay { session, since } => {
                    state.replays.push((session, since));
                    self.replayer.wake();
                }
                Action::Publish { message, stamp, will, ticket } => {
                    let plain = self.plain.iter().find(|topic| ***topic == *message.topic).cloned();
                    let data = match plain {
                        Some(_) => message.payload.to_vec(),
                        None => mesh::encode_will(&message, stamp, will, now),
                    };
                    state.queue.bytes += data.len();
                    state.queue.messages.push_back(Outgoing { plain, data, ticket });
                    published = true;
                }
            }
        }
        if published {
            self.mesh.wake();
        }
        if written {
            self.writer.wake();
        }
        let due = state.broker.deadline(now);
        if due.is_some_and(|due| state.armed.is_none_or(|armed| due < armed)) {
            self.timer_is_due.store(true, Ordering::Release);
            self.timer.wake();
        }
    }

    /// Looks at a password where that holds nobody up.
    fn authenticate(&self, state: &State, id: ConnectionId, Credentials { user, password }: Credentials) {
        let (Some(own), users) = (self.own.upgrade(), state.users.clone()) else { return };
        self.runtime.spawn(async move {
            let look = move || users.is_some_and(|users| users.verify(&user, &password));
            let verdict = match own.runtime.unblock(look).await {
                Ok(true) => Verdict::Accepted,
                Ok(false) | Err(_) => Verdict::Refused,
            };
            own.with(|state, now| state.broker.authenticated(id, verdict, now));
        });
    }

    /// Puts a changed access in force.
    pub(super) fn set_access(&self, access: smidge_mqtt::Access) {
        self.with(|state, now| {
            state.users.clone_from(&access.users);
            state.broker.set_access(access, now);
        });
    }

    /// A task for a new connection, if there is a place for it.
    pub(super) fn connect(&self, task: &Arc<AtomicWaker>) -> Option<ConnectionId> {
        self.with(|state, now| {
            let id = state.broker.connect(now).ok()?;
            state.tasks.insert(id, task.clone());
            Some(id)
        })
    }

    pub(super) fn closed(&self, id: ConnectionId) {
        self.with(|state, now| {
            state.tasks.remove(&id);
            state.broker.closed(id, now);
        });
    }

    /// What waits for the mesh, of one topic, at most so much; pending while nothing does. `None`: nothing will any more.
    pub(super) fn poll_outgoing(
        &self,
        cx: &mut Context<'_>,
        messages: usize,
        bytes: usize,
    ) -> Poll<Option<Batch>> {
        self.mesh.register(cx.waker());
        let mut state = self.state();
        let queue = &mut state.queue;
        let Some(first) = queue.messages.pop_front() else {
            let ends = self.closing.load(Ordering::Acquire);
            return if ends { Poll::Ready(None) } else { Poll::Pending };
        };
        let mut batch = Batch { plain: first.plain.clone(), ..Batch::default() };
        let mut size = first.data.len();
        batch.push(first);
        while batch.messages.len() < messages
            && let Some(next) = queue.messages.front()
            && next.plain == batch.plain
            && size + next.data.len() <= bytes
            && let Some(next) = queue.messages.pop_front()
        {
            size += next.data.len();
            batch.push(next);
        }
        queue.bytes -= size;
        if queue.bytes < MESH_BYTES / 2 {
            queue.waiting.drain(..).for_each(|task| task.wake());
        }
        Poll::Ready(Some(batch))
    }

    /// What is to be written next; pending while nothing is. `None`: nothing will any more.
    pub(super) fn poll_write(&self, cx: &mut Context<'_>) -> Poll<Option<Write>> {
        self.writer.register(cx.waker());
        match self.state().writes.pop() {
            None if !self.closing.load(Ordering::Acquire) => Poll::Pending,
            write => Poll::Ready(write),
        }
    }

    /// What this node says of itself next, as above.
    pub(super) fn poll_said(&self, cx: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        self.speaker.register(cx.waker());
        match self.state().said.take() {
            None if !self.closing.load(Ordering::Acquire) => Poll::Pending,
            said => Poll::Ready(said),
        }
    }

    /// Sessions that wait for what they missed, as above.
    pub(super) fn poll_replays(&self, cx: &mut Context<'_>) -> Poll<Option<Vec<(SessionId, u64)>>> {
        self.replayer.register(cx.waker());
        if self.closing.load(Ordering::Acquire) {
            return Poll::Ready(None);
        }
        let waiting = std::mem::take(&mut self.state().replays);
        if waiting.is_empty() { Poll::Pending } else { Poll::Ready(Some(waiting)) }
    }

    /// No more comes: the tasks that publish and write end once all is out.
    pub(super) fn end_outgoing(&self) {
        self.closing.store(true, Ordering::Release);
        self.mesh.wake();
        self.state().taps.values().for_each(|task| task.wake());
        self.writer.wake();
        self.speaker.wake();
        self.replayer.wake();
    }

    /// Does what is due, for as long as the server runs.
    pub(super) async fn mind_the_time(self: Arc<Self>) {
        loop {
            let now = self.runtime.now();
            let due = {
                let mut state = self.state();
                state.armed = state.broker.deadline(now);
                state.armed
            };
            let mut sleep = due.map(|due| self.runtime.sleep_until(due));
            std::future::poll_fn(|cx| {
                self.timer.register(cx.waker());
                let changed = self.timer_is_due.swap(false, Ordering::AcqRel);
                if changed || self.closing.load(Ordering::Acquire) {
                    return Poll::Ready(());
                }
                match &mut sleep {
                    Some(sleep) => futures::FutureExt::poll_unpin(sleep, cx),
                    None => Poll::Pending,
                }
            })
            .await;
            if self.closing.load(Ordering::Acquire) {
                return;
            }
            self.with(|state, now| {
                state.armed = None;
                state.broker.set_clock(clock(&self.runtime));
                state.broker.tick(now);
                // Looked at anew above.
                state.armed = Some(now);
            });
            crate::node::yield_now().await;
        }
    }

    pub(super) fn wake_timer(&self) {
        self.timer.wake();
    }
}

impl State {
    /// Whether clients that publish have to wait for the mesh; `task` is woken when they have not any more.
    pub(super) fn mesh_is_full(&mut self, task: &Arc<AtomicWaker>) -> bool {
        let full = self.queue.bytes >= MESH_BYTES;
        if full && !self.queue.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, task)) {
            self.queue.waiting.push(task.clone());
        }
        full
    }

    /// A message of a topic that is carried as it is.
    pub(super) fn inject_plain(&mut self, topic: &str, data: &[u8], now: Instant) {
        // The configuration has only names that are topics.
        if let Ok(message) = smidge_mqtt::Message::new(topic, data.to_vec(), Qos::AtLeastOnce, false) {
            self.broker.inject(message, now);
        }
    }
}
