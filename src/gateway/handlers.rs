//! What each path answers: a question to the node, and its answer as JSON or raw bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use libp2p::PeerId;
use serde::Serialize;
use serde_json::json;

use super::{
    answer::{Answer, Refusal},
    connection::Request,
    context::Context,
    metrics, mqtt, state,
    target::{Query, Route},
};
use crate::{
    mqtt::Local,
    node::{Client, GossipState, PublishOptions, PutOptions, Quorum, Status},
};

/// How long the node has to say that it lives.
const ALIVE: Duration = Duration::from_secs(2);

/// Answers from the node's own state within [`ALIVE`], whatever the loop is at; what waits for the network has
/// limits of its own.
pub(super) async fn answer(context: &Context, request: Request) -> Result<Answer, Refusal> {
    match request.route {
        Route::Health
        | Route::Ready
        | Route::Metrics
        | Route::Status
        | Route::History
        | Route::Peers
        | Route::Names
        | Route::Mesh => {
            let answered = context.runtime.timeout(ALIVE, answer_now(context, request)).await;
            answered
                .unwrap_or_else(|_| Err(Refusal::new(503, "the node does not answer", "its log tells more")))
        }
        _ => answer_now(context, request).await,
    }
}

async fn answer_now(context: &Context, request: Request) -> Result<Answer, Refusal> {
    let Request { route, query, body } = request;
    let client = &context.client;
    let plain = "no parameters";
    if let Route::Publish(topic) = route {
        return publish(context, topic, query, body).await;
    }
    match route {
        Route::State(topic, call) => return state::answer(context, topic, call, query, body).await,
        Route::MqttPublish(topic) => return mqtt::publish(context, topic, query, body).await,
        Route::Put(key) => return put(context, key, query, body).await,
        Route::Get(key) => return get(context, key, query).await,
        Route::Ready => return ready(context, query).await,
        // Everything below takes no parameters.
        _ => query.done(plain)?,
    }
    Ok(match route {
        Route::Health => return health(context).await,
        Route::Metrics => return metrics::answer(context).await,
        Route::Status => {
            let status = client.status().await?;
            let (live, ready) = (is_live(context, &status), status.peers > status.gossip_off);
            Answer::json(&Standing { status, live, ready })
        }
        Route::History => Answer::json(&client.history().await?),
        Route::Peers => Answer::json(&json!({ "peers": client.peers().await? })),
        Route::Names => Answer::json(&json!({ "names": client.names().await? })),
        Route::Mesh => {
            let meshes = client.mesh().await?;
            let texts: BTreeMap<_, Vec<_>> = meshes
                .into_iter()
                .map(|(topic, peers)| (topic, peers.iter().map(ToString::to_string).collect()))
                .collect();
            Answer::json(&json!({ "topics": texts }))
        }
        Route::MqttStatus => Answer::json(&context.mqtt.as_ref().map(Local::status).unwrap_or_default()),
        Route::Provide(key) => {
            client.provide(key).await?;
            Answer::json(&json!({ "provider": client.peer_id().to_string() }))
        }
        Route::Providers(key) => {
            let providers: Vec<_> = client.providers(key).await?.iter().map(ToString::to_string).collect();
            Answer::json(&json!({ "providers": providers }))
        }
        Route::FindPeer(peer) => {
            let addresses = client.find_peer(peer).await?;
            Answer::json(&json!({ "peer": peer.to_string(), "addresses": addresses }))
        }
        Route::Ping(peer) => ping(client, peer).await?,
        Route::PingAt(address) => {
            let peer = client.connect(address).await?;
            ping(client, peer).await?
        }
        Route::Publish(_)
        | Route::PublishMany(..)
        | Route::State(..)
        | Route::StateWatch(..)
        | Route::MqttFollow(_)
        | Route::MqttPublish(_)
        | Route::Put(_)
        | Route::Get(_)
        | Route::Ready
        | Route::Follow(_)
        | Route::Page => {
            // Answered above, and where streams and the page are.
            return Err(Refusal::new(
                500,
                "a path without an answer",
                "this is an error of smidge: report it",
            ));
        }
    })
}

async fn ping(client: &Client, peer: PeerId) -> Result<Answer, Refusal> {
    let rtt = client.ping(peer).await?;
    let micros = u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX);
    Ok(Answer::json(&json!({ "peer": peer.to_string(), "rtt_us": micros })))
}

async fn publish(context: &Context, topic: String, query: Query, body: Vec<u8>) -> Result<Answer, Refusal> {
    let options = publish_options(query)?;
    Ok(Answer::json(&context.client.publish(topic, body, options).await?))
}

/// How messages are to be published.
pub(super) fn publish_options(mut query: Query) -> Result<PublishOptions, Refusal> {
    let usual = PublishOptions::default();
    let options = PublishOptions {
        wait_peers: query.number("wait_peers")?.or(usual.wait_peers),
        timeout: query.wait("timeout")?.unwrap_or(usual.timeout),
        confirm: query.number("confirm")?.unwrap_or(usual.confirm),
    };
    query.done("wait_peers, timeout, confirm and split")?;
    Ok(options)
}

async fn put(context: &Context, key: Vec<u8>, mut query: Query, body: Vec<u8>) -> Result<Answer, Refusal> {
    let options = PutOptions { quorum: query.quorum("quorum")?.unwrap_or_default(), ttl: query.life("ttl")? };
    query.done("quorum and ttl")?;
    if body.len() > context.max_value {
        let error = format!(
            "a record of {} bytes is larger than kad.max_value = {} bytes lets it be",
            body.len(),
            context.max_value
        );
        return Err(Refusal::new(413, error, "store less, or raise kad.max_value on all nodes"));
    }
    Ok(Answer::json(&context.client.put(key, body, options).await?))
}

async fn get(context: &Context, key: Vec<u8>, mut query: Query) -> Result<Answer, Refusal> {
    let quorum = match query.quorum("quorum")? {
        None | Some(Quorum::One) => 1,
        Some(Quorum::Count(n)) => n.get(),
        Some(Quorum::Majority | Quorum::All) => {
            return Err(Refusal::bad("bad value of quorum", "for a get, a whole number, 1 or more"));
        }
    };
    query.done("quorum")?;
    Ok(Answer::new("application/octet-stream", context.client.get(key, quorum).await?))
}

/// The node at a glance, with what `/healthz` and `/readyz` say of it.
#[derive(Serialize)]
struct Standing {
    #[serde(flatten)]
    status: Status,
    live: bool,
    ready: bool,
}

/// What is to be listened on is listened on.
fn is_live(context: &Context, status: &Status) -> bool {
    !context.listens || !status.listening.is_empty()
}

/// Live: the loop answers, and what is to be listened on is listened on, peers or not.
async fn health(context: &Context) -> Result<Answer, Refusal> {
    if !is_live(context, &context.client.status().await?) {
        return Err(Refusal::new(503, "no listener is up", "the log tells why; listen.addresses says where"));
    }
    Ok(Answer::json(&json!({ "live": true })))
}

/// Ready: as many peers, and as many mesh members of a topic, as was asked for; one peer if nothing was. A peer
/// whose gossip with this node is off does not count.
async fn ready(context: &Context, mut query: Query) -> Result<Answer, Refusal> {
    let (min_peers, topic, min_mesh) =
        (query.number("min_peers")?, query.text("topic"), query.number("min_mesh")?);
    query.done("min_peers, topic and min_mesh")?;
    if min_mesh.is_some() && topic.is_none() {
        return Err(Refusal::bad("min_mesh without a topic", "say which: topic=TOPIC"));
    }
    let wanted_peers = min_peers.unwrap_or(usize::from(topic.is_none()));
    let all = context.client.peers().await?;
    let off: BTreeSet<_> = all.iter().filter(|p| p.gossip == GossipState::Off).map(|p| p.peer).collect();
    let peers = all.len() - off.len();
    let deaf = if off.is_empty() { String::new() } else { format!(", gossip with {} is off", off.len()) };
    let mut record = json!({ "ready": true, "peers": peers, "gossip_off": off.len() });
    let mut missing =
        (peers < wanted_peers).then(|| format!("{peers} of {wanted_peers} peers are connected{deaf}"));
    if let Some(topic) = topic {
        let wanted = min_mesh.unwrap_or(1);
        let mesh = context.client.mesh().await?;
        let members = mesh.get(&topic).map_or(0, |mesh| mesh.iter().filter(|p| !off.contains(p)).count());
        record["mesh"] = members.into();
        if members < wanted {
            missing = Some(format!("{members} of {wanted} peers are in the mesh of {topic:?}{deaf}"));
        }
    }
    match missing {
        None => Ok(Answer::json(&record)),
        Some(missing) => Err(Refusal::new(
            503,
            format!("not ready: {missing}"),
            "GET /v1/names tells how the names stand, /v1/mesh which topics are followed",
        )),
    }
}
