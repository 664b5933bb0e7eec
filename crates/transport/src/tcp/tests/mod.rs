//! Tests of the whole transport over loopback.

mod hostile;
mod loopback;
mod swarm;

use std::{
    future::poll_fn,
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    AsyncWriteExt, FutureExt, SinkExt, StreamExt,
    channel::{mpsc, oneshot},
    stream::FuturesUnordered,
};
use libp2p::{
    Multiaddr, PeerId, Transport as _,
    core::{
        Endpoint as Role,
        muxing::{StreamMuxer, StreamMuxerBox},
        transport::{Boxed, DialOpts, ListenerId, PortUse, TransportEvent},
    },
    identity::Keypair,
};
use smidge_runtime::Handle;

use super::{Config, Connection, Error, Stream, Transport, addr};
use crate::testing::{End, NEW, PATIENCE, REUSE, Tested, chain, connect, echo, real, round_trip};

type Node = crate::testing::Node<Transport>;

const ANSWER: DialOpts = DialOpts { role: Role::Listener, port_use: PortUse::Reuse };

const ANY_PORT: &str = "/ip4/127.0.0.1/tcp/0";

fn config() -> Config {
    Config::new(&Keypair::generate_ed25519()).unwrap()
}

impl Tested for Transport {
    type Peer = Peer;
    type Config = Config;

    const LOOPBACK: &'static str = ANY_PORT;

    fn config() -> Config {
        config()
    }

    fn with(config: Config, rt: &Handle) -> Self {
        Self::new(config, rt.clone()).unwrap()
    }

    fn peer_id(&self) -> PeerId {
        self.local_peer_id()
    }

    fn peer(rt: &Handle, (peer, connection): (PeerId, Connection)) -> (PeerId, Peer) {
        (peer, Peer::new(rt, connection))
    }

    fn socket(address: &Multiaddr) -> SocketAddr {
        addr::parse_dial(address).unwrap().0
    }

    fn boxed_muxer(self) -> Boxed<(PeerId, StreamMuxerBox)> {
        self.map(|(peer, connection), _| (peer, StreamMuxerBox::new(connection))).boxed()
    }
}

/// One end of a connection: all of it happens in one task, as in a swarm.
#[derive(Clone)]
pub(crate) struct Peer(mpsc::Sender<Request>);

type Reply<T> = oneshot::Sender<Result<T, Error>>;

enum Request {
    Open(Reply<Stream>),
    Accept(Reply<Stream>),
    Close(Reply<()>),
}

impl Peer {
    fn new(rt: &Handle, mut muxer: Connection) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Request>(64);
        let mut waiting = Vec::new();
        rt.spawn(poll_fn(move |cx| {
            loop {
                match receiver.poll_next_unpin(cx) {
                    Poll::Ready(Some(request)) => waiting.push(request),
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            // What ends the connection is the answer to the next request.
            let _ = Pin::new(&mut muxer).poll(cx);
            for request in std::mem::take(&mut waiting) {
                waiting.extend(request.serve(Pin::new(&mut muxer), cx));
            }
            Poll::Pending
        }));
        Self(sender)
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        self.0.clone().send(request(reply)).await.unwrap();
        answer.await.expect("the connection's task lives as long as somebody asks")
    }

    async fn close(&self) -> Result<(), Error> {
        self.ask(Request::Close).await
    }
}

impl End for Peer {
    type Stream = Stream;
    type Error = Error;

    async fn open(&self) -> Result<Stream, Error> {
        self.ask(Request::Open).await
    }

    async fn accept(&self) -> Result<Stream, Error> {
        self.ask(Request::Accept).await
    }
}

impl Request {
    /// Answers, or comes back if that has to wait.
    fn serve(self, muxer: Pin<&mut Connection>, cx: &mut Context<'_>) -> Option<Self> {
        fn answer<T>(reply: Reply<T>, polled: Poll<Result<T, Error>>) -> Option<Reply<T>> {
            match polled {
                Poll::Pending => Some(reply),
                Poll::Ready(result) => {
                    // Whoever asked may be gone.
                    let _ = reply.send(result);
                    None
                }
            }
        }
        match self {
            Self::Open(reply) => answer(reply, muxer.poll_outbound(cx)).map(Self::Open),
            Self::Accept(reply) => answer(reply, muxer.poll_inbound(cx)).map(Self::Accept),
            Self::Close(reply) => answer(reply, muxer.poll_close(cx)).map(Self::Close),
        }
    }
}
