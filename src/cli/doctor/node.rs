//! The node that runs with this configuration, if one does: for comparison, never needed.

use libp2p::{Multiaddr, PeerId};
use serde_json::Value;

use super::{finding::Finding, listen::Running};
use crate::{
    cli::{
        Failure,
        api::{ApiArgs, Where},
        exit,
    },
    config::{ApiListen, Config},
    runtime::Handle,
};

const CHECK: &str = "node.running";

/// What a running node says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) peer: Option<PeerId>,
    pub(super) running: Running,
    /// Where another node has its key.
    pub(super) same_key: Vec<Multiaddr>,
}

impl Node {
    /// What of it is wrong, by its own account.
    pub(super) fn findings(&self) -> impl Iterator<Item = Finding> {
        self.same_key.iter().map(|address| {
            Finding::warn(
                "node.same_key",
                address.to_string(),
                "another node has this node's key, or this address leads back here",
                "a copied key file or card image: delete the file of identity.key_file on one of the two, and start \
                 it again; a load balancer: dial the replicas themselves (tasks.NAME, a headless service)",
            )
        })
    }
}

/// Where the node of `config` answers, unless it picks a port of its own.
fn usual(config: &Config) -> Option<String> {
    match &config.api.listen {
        ApiListen::Off => None,
        ApiListen::Tcp(socket) if socket.port() == 0 => None,
        ApiListen::Tcp(socket) if socket.ip().is_unspecified() => {
            let host = if socket.is_ipv4() { "127.0.0.1" } else { "[::1]" };
            Some(format!("http://{host}:{}", socket.port()))
        }
        ApiListen::Tcp(socket) => Some(format!("http://{socket}")),
        ApiListen::Unix(path) => Some(format!("unix:{}", path.display())),
    }
}

pub(super) async fn check(
    args: &ApiArgs,
    config: &Config,
    runtime: &Handle,
    key: Option<PeerId>,
) -> Result<(Finding, Node), Failure> {
    let (named, usual) = (args.named(), usual(config));
    let Some(url) = named.clone().or_else(|| usual.clone()) else {
        return Ok((
            Finding::ok(CHECK, "node", "not asked: api.listen names no fixed place"),
            Node::default(),
        ));
    };
    let answer = Where::new(url.clone(), "doctor")?
        .token(config.api.token.clone())
        .open(runtime.clone())
        .get("/v1/status")
        .await;
    let status = answer.as_ref().ok().and_then(|body| serde_json::from_slice::<Value>(body).ok());
    let list = |key: &str| {
        let items = status.as_ref().and_then(|s| s[key].as_array()).into_iter().flatten();
        items.filter_map(|item| item.as_str()?.parse::<Multiaddr>().ok()).collect()
    };
    let peer = status.as_ref().and_then(|s| s["peer"].as_str()?.parse().ok());
    let node = Node {
        peer,
        same_key: list("same_key"),
        running: Running {
            listening: list("listening"),
            // What asks for a token is a node, too.
            api: usual.as_ref() == Some(&url) && !answer.as_ref().is_err_and(|e| e.code == exit::UNAVAILABLE),
        },
    };
    let failure = answer.err().map(|failure| (failure.code, said(&failure)));
    Ok((judge(&url, named.is_some(), peer, failure, key), node))
}

fn said(failure: &Failure) -> String {
    failure.why.first().map(|(why, _)| why.clone()).unwrap_or_default()
}

fn judge(
    url: &str,
    named: bool,
    peer: Option<PeerId>,
    failure: Option<(u8, String)>,
    key: Option<PeerId>,
) -> Finding {
    let subject = "node";
    match (peer, failure) {
        (Some(peer), _) => match key {
            Some(key) if key != peer => Finding::warn(
                CHECK,
                subject,
                format!("{peer} runs at {url}, with another key than this configuration's ({key})"),
                "another node, or a key that was changed since it was started: restart it, or give --config of that node",
            ),
            _ => Finding::ok(CHECK, subject, format!("{peer} runs at {url}")),
        },
        (None, Some((exit::UNAVAILABLE, _))) if !named => {
            Finding::ok(CHECK, subject, format!("none runs at {url}"))
        }
        (None, Some((_, why))) => {
            let advice = "start it (smidge run), say where its API is with --api URL, and give its token as the node has it";
            Finding::warn(CHECK, subject, why, advice)
        }
        (None, None) => Finding::warn(
            CHECK,
            subject,
            format!("what answers at {url} is no smidge node"),
            "name another --api URL",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Verdict, *};

    #[test]
    fn a_node_is_for_comparison_and_not_needed() {
        let (one, two) = (PeerId::random(), PeerId::random());
        let gone = || Some((exit::UNAVAILABLE, "no node answers".to_owned()));
        let refused = || Some((exit::FAILED, "this node asks for a token".to_owned()));
        for (named, peer, failure, key, expected) in [
            (false, Some(one), None, Some(one), Verdict::Ok),
            (false, Some(one), None, None, Verdict::Ok),
            (false, Some(one), None, Some(two), Verdict::Warn),
            (false, None, gone(), Some(one), Verdict::Ok),
            (true, None, gone(), Some(one), Verdict::Warn),
            (false, None, refused(), None, Verdict::Warn),
            (false, None, None, None, Verdict::Warn),
        ] {
            assert_eq!(
                judge("u", named, peer, failure.clone(), key).verdict,
                expected,
                "{named} {peer:?} {failure:?}"
            );
        }
    }

    #[test]
    fn a_key_that_two_nodes_have_is_something_to_look_at() {
        let at: Multiaddr = "/ip4/10.0.0.7/udp/4001/quic-v1".parse().unwrap();
        let node = Node { same_key: vec![at.clone()], ..Node::default() };
        let findings: Vec<_> = node.findings().collect();
        assert_eq!(findings.len(), 1);
        assert_eq!((findings[0].verdict, &*findings[0].subject), (Verdict::Warn, &*at.to_string()));
        assert_eq!(Node::default().findings().count(), 0);
    }

    #[test]
    fn a_node_is_looked_for_where_its_configuration_puts_it() {
        for (listen, expected) in [
            ("127.0.0.1:4080", Some("http://127.0.0.1:4080")),
            ("0.0.0.0:1", Some("http://127.0.0.1:1")),
            ("[::]:1", Some("http://[::1]:1")),
            ("127.0.0.1:0", None),
            ("off", None),
            ("unix:/run/s.sock", Some("unix:/run/s.sock")),
        ] {
            let options = crate::config::LoadOptions {
                sets: vec![format!("api.listen={listen}"), "api.token=s3cret".into()],
                ..Default::default()
            };
            let config = Config::load(&options).unwrap();
            assert_eq!(usual(&config).as_deref(), expected, "{listen}");
        }
    }
}
