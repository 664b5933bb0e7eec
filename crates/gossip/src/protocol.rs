//! The protocols' names, and the upgrade that says which of them was agreed upon.

use std::{convert::Infallible, future};

use libp2p::{
    StreamProtocol,
    core::{InboundUpgrade, OutboundUpgrade, UpgradeInfo},
    swarm::Stream,
};

use crate::PeerKind;

/// Offered in this order.
const GOSSIPSUB: [(StreamProtocol, PeerKind); 4] = [
    (StreamProtocol::new("/meshsub/1.3.0"), PeerKind::V1_3),
    (StreamProtocol::new("/meshsub/1.2.0"), PeerKind::V1_2),
    (StreamProtocol::new("/meshsub/1.1.0"), PeerKind::V1_1),
    (StreamProtocol::new("/meshsub/1.0.0"), PeerKind::V1_0),
];
const FLOODSUB: (StreamProtocol, PeerKind) = (StreamProtocol::new("/floodsub/1.0.0"), PeerKind::Floodsub);

/// What we speak.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocols(Vec<(StreamProtocol, PeerKind)>);

/// One of [`Protocols`].
#[derive(Clone, Debug)]
pub struct Agreed(StreamProtocol, PeerKind);

impl AsRef<str> for Agreed {
    fn as_ref(&self) -> &str {
        self.0.as_ref()
    }
}

impl Protocols {
    /// All of gossipsub, up to `newest`, and floodsub if asked for.
    pub(crate) fn new(newest: PeerKind, floodsub: bool) -> Self {
        let gossipsub = GOSSIPSUB.into_iter().filter(|(_, kind)| *kind <= newest);
        Self(gossipsub.chain(floodsub.then_some(FLOODSUB)).collect())
    }
}

impl UpgradeInfo for Protocols {
    type Info = Agreed;
    type InfoIter = Vec<Agreed>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.iter().map(|(name, kind)| Agreed(name.clone(), *kind)).collect()
    }
}

impl InboundUpgrade<Stream> for Protocols {
    type Output = (Stream, PeerKind);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, agreed: Agreed) -> Self::Future {
        future::ready(Ok((stream, agreed.1)))
    }
}

impl OutboundUpgrade<Stream> for Protocols {
    type Output = (Stream, PeerKind);
    type Error = Infallible;
    type Future = future::Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, agreed: Agreed) -> Self::Future {
        future::ready(Ok((stream, agreed.1)))
    }
}
