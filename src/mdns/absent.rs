//! In the place of the behaviour, in a program that was built without the feature `mdns`: finds no peer, and reports
//! that where discovery was asked for.

use std::{
    io,
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{
        ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
        THandlerOutEvent, ToSwarm, dummy,
    },
};

use super::{Notice, Segment, Settings};
use crate::{dialer::NameStatus, runtime::Handle};

/// Whether the group could be joined on each segment.
pub(crate) type Tried = Vec<(Segment, io::Result<()>)>;

/// Where peers would be looked for.
///
/// # Errors
/// Always: nowhere.
pub(crate) fn rehearse(_: &Handle, _: &[String]) -> io::Result<(Tried, Option<String>)> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Finds no peer.
#[derive(Debug)]
pub(crate) struct Behaviour {
    /// Reported once.
    notice: Option<Notice>,
}

impl Behaviour {
    /// Reports that there is no discovery.
    pub(crate) fn new(_: PeerId, _: Settings, _: Handle, _: fastrand::Rng) -> Self {
        let why = "this binary was built without the feature mdns".into();
        Self { notice: Some(Notice::Trouble { segment: None, why }) }
    }

    /// A behaviour that does nothing.
    pub(crate) fn off() -> Self {
        Self { notice: None }
    }

    /// Where another node is said to have this node's key: nowhere.
    pub(crate) fn same_key(&self) -> Vec<Multiaddr> {
        Vec::new()
    }

    /// Discovery is off.
    pub(crate) fn status(&self) -> Option<NameStatus> {
        None
    }

    /// There is nothing to stop.
    pub(crate) fn stop(&mut self) {}
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Notice;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(dummy::ConnectionHandler)
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.notice.take().map_or(Poll::Pending, |notice| Poll::Ready(ToSwarm::GenerateEvent(notice)))
    }
}
