//! The message of `[publish]`: its bytes, how many they are, and how often.

use super::{Rule, rule};
use crate::config::{Config, Encoding, Publish, quoted};

impl Config {
    pub(super) fn publish_rules(&self) -> Vec<Rule> {
        let Self { publish, gossip, .. } = self;
        let room = gossip.max_message;
        let payload = publish.payload();
        let length = payload.as_ref().map_or(0, Vec::len);
        let mut rules = vec![
            rule(
                &["publish.data", "publish.encoding"],
                payload.is_err(),
                payload.err().unwrap_or_default(),
                publish.encoding.expected(),
            ),
            rule(
                &["publish.data", "gossip.max_message"],
                publish.topic.is_some() && length > room,
                format!("{length} bytes do not fit into a message of gossip.max_message"),
                &format!("at most {room} bytes"),
            ),
        ];
        let every = publish.every;
        rules.push(rule(
            &["publish.every"],
            !every.is_zero() && every < std::time::Duration::from_millis(10),
            format!("{every:?} is too often"),
            "0s, or 10ms and more",
        ));
        rules
    }
}

impl Encoding {
    fn expected(self) -> &'static str {
        match self {
            Self::Bytes => "numbers from 0 to 255 with commas between, such as \"1,2,3,4\"",
            Self::Text => "a text",
            Self::Base64 => "base64 with its padding, such as \"AQIDBA==\"",
            Self::Hex => "two hexadecimal digits a byte, such as \"01020304\"",
        }
    }
}

impl Publish {
    /// The bytes that `data` stands for.
    ///
    /// # Errors
    /// Says what of `data` is not in `encoding`; a checked configuration has no such data.
    pub fn payload(&self) -> Result<Vec<u8>, String> {
        let data = self.data.as_str();
        match self.encoding {
            Encoding::Text => Ok(data.as_bytes().to_vec()),
            Encoding::Bytes if data.trim().is_empty() => Ok(Vec::new()),
            Encoding::Bytes => data
                .split(',')
                .map(|part| {
                    let part = part.trim();
                    part.parse().map_err(|_| format!("{} is no byte", quoted(part)))
                })
                .collect(),
            Encoding::Base64 => {
                data_encoding::BASE64.decode(data.as_bytes()).map_err(|e| format!("is not base64: {e}"))
            }
            Encoding::Hex => data_encoding::HEXLOWER_PERMISSIVE
                .decode(data.as_bytes())
                .map_err(|e| format!("is not hexadecimal: {e}")),
        }
    }
}
