//! Peer ids as tables print them, `…vnc6iDEp`: what a person types of one, and the peer that is meant.

use libp2p::PeerId;
use serde_json::Value;

use super::{Failure, api::Api, exit};

/// What is enough of an id where nothing says that it was cut, and where it begins with an ellipsis.
const PART: usize = 8;
const CUT: usize = 4;

/// The part of a peer id that `text` is, if it looks like one.
pub(super) fn part(text: &str) -> Option<&str> {
    let bare = text.trim_start_matches(['…', '.']).trim_end_matches(['…', '.']);
    let least = if bare.len() < text.len() { CUT } else { PART };
    let is_base58 = |c: char| c.is_ascii_alphanumeric() && !matches!(c, '0' | 'O' | 'I' | 'l');
    (bare.len() >= least && bare.chars().all(is_base58)).then_some(bare)
}

/// The peer id that `text` is, or begins or ends of a peer that the node is connected to, or of the node itself.
pub(super) async fn whole(api: &mut Api, text: &str) -> Result<String, Failure> {
    let Some(part) = part(text).filter(|_| text.parse::<PeerId>().is_err()) else {
        return Ok(text.to_owned());
    };
    let peers: Value = serde_json::from_slice(&api.get("/v1/peers").await?).unwrap_or_default();
    let own: Value = serde_json::from_slice(&api.get("/v1/status").await?).unwrap_or_default();
    let peers = peers["peers"].as_array().into_iter().flatten().chain([&own]);
    let ids = peers.filter_map(|peer| peer["peer"].as_str());
    one_of(part, ids).map_err(|(why, hint)| Failure::new(exit::USAGE, api.verb, why).hint(hint))
}

fn one_of<'a>(part: &str, ids: impl Iterator<Item = &'a str>) -> Result<String, (String, String)> {
    let found: Vec<_> = ids.filter(|id| id.starts_with(part) || id.ends_with(part)).collect();
    match found[..] {
        [id] => Ok(id.to_owned()),
        [] => Err((
            format!("no connected peer's id begins or ends with {part}"),
            "`smidge peers` tells who is connected; of others the whole id is needed".into(),
        )),
        _ => Err((
            format!("{part} is in the ids of {} peers", found.len()),
            format!("one of {}", found.join(", ")),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tables_print_is_a_part_of_an_id_and_words_are_none() {
        for (text, expected) in [
            ("…vnc6iDEp", Some("vnc6iDEp")),
            ("...vnc6", Some("vnc6")),
            ("vnc6iDEp", Some("vnc6iDEp")),
            ("12D3KooWEyop…", Some("12D3KooWEyop")),
            ("nobody", None),
            ("…abc", None),
            ("…l0OIl0OI", None),
            ("10.0.0.1:4001", None),
            ("/ip4/10.0.0.1", None),
            ("", None),
        ] {
            assert_eq!(part(text), expected, "{text}");
        }
    }

    #[test]
    fn a_part_is_whose_it_is_alone() {
        let ids = ["12D3KooWEyopAAAAxxxx", "12D3KooWFzzzBBBBxxxx"];
        assert_eq!(one_of("12D3KooWE", ids.into_iter()), Ok(ids[0].into()));
        assert_eq!(one_of("BBBBxxxx", ids.into_iter()), Ok(ids[1].into()));
        let (why, hint) = one_of("xxxx", ids.into_iter()).unwrap_err();
        assert!(why.contains("2 peers") && ids.iter().all(|id| hint.contains(id)), "{why} {hint}");
        assert!(one_of("yyyy", ids.into_iter()).unwrap_err().0.contains("no connected peer"));
    }
}
