//! The handle through which a program talks to its node.
//!
//! Cheap to clone and to send anywhere. A client never touches the swarm: it puts a command into a
//! bounded queue and waits for the answer. When the node has stopped, every call says so.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures::channel::oneshot;
use libp2p::{Multiaddr, PeerId, metrics::Registry};
use prometheus_client::metrics::counter::Counter;

use super::{
    command::{Command, PublishOptions, PutOptions, Reply, Stored},
    error::Error,
    event::{Event, Receipt},
    feed::Opener,
    history::TrafficHistory,
    peers::PeerStatus,
    replay::Start,
    state::{StateEntry, StateWatch},
    status::Status,
    subscription::Subscription,
    topics::Events,
};
use crate::{
    config::{Config, Target},
    dialer::NameStatus,
};

/// A handle on a running node.
///
/// The node runs until [`shutdown`](Self::shutdown) is called or the last handle is dropped.
#[derive(Clone, Debug)]
pub struct Client {
    peer: PeerId,
    commands: async_channel::Sender<Command>,
    events: Opener<Event>,
    metrics: Arc<Registry>,
    /// Events that listeners were too slow for.
    lost: Counter,
}

impl Client {
    pub(crate) fn new(
        peer: PeerId,
        commands: async_channel::Sender<Command>,
        events: Opener<Event>,
        metrics: Arc<Registry>,
        lost: Counter,
    ) -> Self {
        Self { peer, commands, events, metrics, lost }
    }

    /// The node's own peer id.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// The node's counters, to be encoded as OpenMetrics: libp2p's own and this node's.
    pub fn metrics(&self) -> &Registry {
        &self.metrics
    }

    /// Everything that happens from now on. A listener that falls more than `limits.events` or
    /// `limits.backlog` behind loses the oldest, which are counted.
    pub fn events(&self) -> Events {
        self.events.open(&self.lost)
    }

    /// Stays connected to every replica behind `target`, from now on and whatever happens.
    ///
    /// # Errors
    /// [`Error::Stopped`], [`Error::ShuttingDown`], as every call; [`Error::Limit`].
    pub async fn dial(&self, target: Target) -> Result<(), Error> {
        self.ask(|reply| Command::Dial { target, reply }).await
    }

    /// Joins `topic` and returns its messages from now on, also those that are published at this node, unless it is to
    /// be [without them](Subscription::no_local).
    ///
    /// # Errors
    /// [`Error::BadTopic`]; [`Error::Limit`] with too many subscriptions.
    pub async fn subscribe(&self, topic: impl Into<String>) -> Result<Subscription, Error> {
        let topic = topic.into();
        self.ask(|reply| Command::Subscribe { topic, start: Start::Now, reply }).await
    }

    /// The same, beginning in the past: with what this node remembers of the topic, and then what is live. Nothing comes
    /// twice, and where something between is remembered no more, [`Delivery::Gone`](super::Delivery) says so.
    ///
    /// # Errors
    /// [`Error::NotKept`] where the topic is not kept here, unless `start` is [`Start::Behind`] something: all is gone
    /// then. As [`subscribe`](Self::subscribe).
    pub async fn subscribe_from(
        &self,
        topic: impl Into<String>,
        start: Start,
    ) -> Result<Subscription, Error> {
        let topic = topic.into();
        self.ask(|reply| Command::Subscribe { topic, start, reply }).await
    }

    /// Leaves `topic`, ending all its subscriptions; says whether it was followed.
    pub async fn unsubscribe(&self, topic: impl Into<String>) -> Result<bool, Error> {
        let topic = topic.into();
        self.ask(|reply| Command::Unsubscribe { topic, reply }).await
    }

    /// Publishes `data` on `topic` once somebody has subscribed to it, or as many peers as `options` ask for. Subscribers at
    /// this node hear it, too.
    ///
    /// # Errors
    /// [`Error::NoPeers`] when they have not within the time limit; [`Error::Unconfirmed`] when it went out, and too few
    /// confirmed it; [`Error::NotKept`] where confirmations are asked for in a topic that is not kept; [`Error::MessageTooLarge`],
    /// [`Error::Duplicate`], [`Error::Congested`], [`Error::BadTopic`], [`Error::Limit`].
    pub async fn publish(
        &self,
        topic: impl Into<String>,
        data: impl Into<Vec<u8>>,
        options: PublishOptions,
    ) -> Result<Receipt, Error> {
        let mut outcomes = self.publish_all(topic, vec![data.into()], options).await?;
        outcomes.pop().unwrap_or(Err(Error::Stopped))
    }

    /// Publishes `messages` on `topic` in their order, as [`publish`](Self::publish) does one, and says what came of
    /// each. They wait together for subscribers and for room in queues, take one place among the publishes that may
    /// wait (`limits.pending`), and cost less than one by one; with `bundle` in the topic's rules those that fit into
    /// a message travel in one.
    ///
    /// # Errors
    /// What [`publish`](Self::publish) fails with: of all of them where none was tried ([`Error::BadTopic`],
    /// [`Error::Limit`]), otherwise each its own.
    pub async fn publish_all(
        &self,
        topic: impl Into<String>,
        messages: Vec<Vec<u8>>,
        options: PublishOptions,
    ) -> Result<Vec<Result<Receipt, Error>>, Error> {
        if messages.is_empty() {
            return Ok(Vec::new());
        }
        self.begin_publish(topic.into(), messages, options).await?.await.map_err(|_| Error::Stopped)?
    }

    /// The same, of which the answer is waited for elsewhere: those that are begun one after the other go out in that order.
    pub(crate) async fn begin_publish(
        &self,
        topic: String,
        messages: Vec<Vec<u8>>,
        options: PublishOptions,
    ) -> Result<oneshot::Receiver<Result<Vec<Result<Receipt, Error>>, Error>>, Error> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Publish { topic, messages, options, reply };
        self.commands.send(command).await.map_err(|_| Error::Stopped)?;
        Ok(answer)
    }

    /// The newest value of a key in a topic with `keep = "latest"`, as this node has it; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::NotByKey`], [`Error::BadKey`], [`Error::BadTopic`].
    pub async fn state_get(
        &self,
        topic: impl Into<String>,
        key: impl Into<Vec<u8>>,
    ) -> Result<Option<StateEntry>, Error> {
        let (topic, key) = (topic.into(), key.into());
        self.ask(|reply| Command::StateGet { topic, key, reply }).await
    }

    /// Sets a key, here and at all nodes that keep the topic: those that are there now, and those that come. Nobody has to
    /// be there. Whatever this node has of the key is older then; of two that are set by different nodes at the same time
    /// one wins, the same everywhere.
    ///
    /// # Errors
    /// As [`state_get`](Self::state_get); [`Error::StateFull`] over the bounds of the topic, [`Error::NotAPublisher`],
    /// [`Error::MessageTooLarge`], [`Error::Congested`].
    pub async fn state_set(
        &self,
        topic: impl Into<String>,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
    ) -> Result<Receipt, Error> {
        let (topic, key, value) = (topic.into(), key.into(), Some(value.into()));
        self.ask(|reply| Command::StateSet { topic, key, value, reply }).await
    }

    /// Deletes a key, in the same way.
    ///
    /// # Errors
    /// [`Error::NotFound`] if this node has no value of it; as [`state_set`](Self::state_set).
    pub async fn state_delete(
        &self,
        topic: impl Into<String>,
        key: impl Into<Vec<u8>>,
    ) -> Result<Receipt, Error> {
        let (topic, key) = (topic.into(), key.into());
        self.ask(|reply| Command::StateSet { topic, key, value: None, reply }).await
    }

    /// All keys with their values, in the order of the keys.
    ///
    /// # Errors
    /// [`Error::NotByKey`], [`Error::BadTopic`].
    pub async fn state_list(&self, topic: impl Into<String>) -> Result<Vec<StateEntry>, Error> {
        let topic = topic.into();
        Ok(self.ask(|reply| Command::StateList { topic, reply }).await?.entries)
    }

    /// The same, and from then on every change.
    ///
    /// # Errors
    /// As [`state_list`](Self::state_list); [`Error::Limit`] with too many who watch.
    pub async fn state_watch(&self, topic: impl Into<String>) -> Result<StateWatch, Error> {
        let topic = topic.into();
        self.ask(|reply| Command::StateWatch { topic, reply }).await
    }

    /// Stores a record here and at the nodes closest to its key. When this returns, this node and those
    /// that confirmed have the record where they keep records: on the disk, fsynced, with `kad.store` as
    /// a file; in memory otherwise. Nodes that are closer to its key than those that confirmed may still be on their
    /// way to have it.
    ///
    /// # Errors
    /// [`Error::Store`] when this node cannot keep it; [`Error::Quorum`] when too few others confirmed
    /// (those that did keep it all the same).
    pub async fn put(
        &self,
        key: impl Into<Vec<u8>>,
        value: impl Into<Vec<u8>>,
        options: PutOptions,
    ) -> Result<Stored, Error> {
        let (key, value) = (key.into(), value.into());
        self.ask(|reply| Command::Put { key, value, options, reply }).await
    }

    /// The value of a record, as the first `quorum` nodes (at least one) that have it say; if they
    /// differ, what most of them say.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Quorum`] when fewer nodes than wanted have it.
    pub async fn get(&self, key: impl Into<Vec<u8>>, quorum: usize) -> Result<Vec<u8>, Error> {
        let key = key.into();
        self.ask(|reply| Command::Get { key, quorum: quorum.max(1), reply }).await
    }

    /// Announces this node as a provider of `key`, now and for as long as it runs; with `kad.store` as a
    /// file, until [`stop_providing`](Self::stop_providing), however often it is started again. js-libp2p refuses
    /// keys that are no sha2-256 multihash in silence.
    ///
    /// # Errors
    /// [`Error::Store`] with too many keys provided; [`Error::TimedOut`].
    pub async fn provide(&self, key: impl Into<Vec<u8>>) -> Result<(), Error> {
        let key = key.into();
        self.ask(|reply| Command::Provide { key, reply }).await
    }

    /// Stops announcing this node as a provider of `key`. Others forget when their record expires.
    pub async fn stop_providing(&self, key: impl Into<Vec<u8>>) -> Result<(), Error> {
        let key = key.into();
        self.ask(|reply| Command::StopProviding { key, reply }).await
    }

    /// The providers of `key`, sorted; perhaps none.
    ///
    /// # Errors
    /// [`Error::TimedOut`].
    pub async fn providers(&self, key: impl Into<Vec<u8>>) -> Result<Vec<PeerId>, Error> {
        let key = key.into();
        self.ask(|reply| Command::Providers { key, reply }).await
    }

    /// The addresses at which a peer can be found, as its neighbours in the table know them.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::TimedOut`].
    pub async fn find_peer(&self, peer: PeerId) -> Result<Vec<Multiaddr>, Error> {
        self.ask(|reply| Command::FindPeer { peer, reply }).await
    }

    /// The round-trip time to `peer`, which is looked up and connected to first if need be.
    ///
    /// # Errors
    /// [`Error::Ping`].
    pub async fn ping(&self, peer: PeerId) -> Result<Duration, Error> {
        self.ask(|reply| Command::Ping { peer, reply }).await
    }

    /// The peer at `address`, which is connected to unless it is already. The connection stays, as with
    /// every peer, for as long as both sides keep it.
    ///
    /// # Errors
    /// [`Error::Connect`]; [`Error::Limit`].
    pub async fn connect(&self, address: Multiaddr) -> Result<PeerId, Error> {
        self.ask(|reply| Command::Connect { address, reply }).await
    }

    /// The connected peers, sorted by peer id.
    pub async fn peers(&self) -> Result<Vec<PeerStatus>, Error> {
        self.ask(|reply| Command::Peers { reply }).await
    }

    /// The meshes: for each topic that this node follows, the peers it exchanges messages with.
    pub async fn mesh(&self) -> Result<BTreeMap<String, Vec<PeerId>>, Error> {
        self.ask(|reply| Command::Mesh { reply }).await
    }

    /// Every name with its records and how they stand.
    pub async fn names(&self) -> Result<Vec<NameStatus>, Error> {
        self.ask(|reply| Command::Names { reply }).await
    }

    /// The node at a glance.
    pub async fn status(&self) -> Result<Status, Error> {
        self.ask(|reply| Command::Status { reply }).await
    }

    /// Messages of the last ten minutes, by topic.
    pub async fn history(&self) -> Result<TrafficHistory, Error> {
        self.ask(|reply| Command::History { reply }).await
    }

    /// Takes over what can change in a running node: names, topics and the block list.
    /// [`Config::changes`] tells what needs a restart.
    pub async fn apply(&self, config: Config) -> Result<(), Error> {
        let config = Box::new(config);
        self.ask(|reply| Command::Apply { config, reply }).await
    }

    /// Ends the node in good order: topics are left, connections closed, and only then does this
    /// return, within five seconds. New work is refused meanwhile.
    pub async fn shutdown(&self) -> Result<(), Error> {
        match self.ask(|reply| Command::Shutdown { reply }).await {
            Err(Error::Stopped) => Ok(()),
            result => result,
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| Error::Stopped)?;
        answer.await.map_err(|_| Error::Stopped)?
    }
}
