//! Values that are one word out of a few, and the small types that stand beside them.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr};

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::{
    kind::{said, text_kind},
    nearest,
};
use crate::runtime::Executor;

/// An enum whose variants are written as words, with its [`Kind`](super::kind::Kind).
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)* }

        impl $name {
            /// The words, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),*];
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(match nearest(text, Self::WORDS.iter().copied()) {
                        Some(word) => format!("did you mean {word:?}?"),
                        None => String::new(),
                    }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self { $(Self::$variant => $word,)* })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        text_kind!($name as Self, one_of(Self::WORDS), |text| said(text.parse()), |word| word.to_string());
    };
}

fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    match quoted.as_slice() {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => quoted.concat(),
    }
}

words! {
    /// What a node is for. A role changes defaults and nothing else.
    Role {
        /// Waits to be found.
        Bootstrap = "bootstrap",
        /// Finds the others and talks.
        Peer = "peer",
        /// Finds the others and publishes on start.
        Sender = "sender",
    }
}

words! {
    /// What carries a connection.
    TransportKind {
        /// QUIC over UDP: `/udp/PORT/quic-v1`.
        Quic = "quic",
        /// TCP with Noise and Yamux: `/tcp/PORT`.
        Tcp = "tcp",
    }
}

words! {
    /// What identifies a gossip message.
    MessageIds {
        /// By author and sequence number: equal payloads are different messages.
        Source = "source",
        /// By a hash of topic and payload: equal payloads are one message.
        Content = "content",
    }
}

words! {
    /// Which gossip messages are let in.
    Validation {
        /// Only signed ones with author and sequence number.
        Strict = "strict",
        /// Unsigned ones, too; a signature that is there must be right.
        Permissive = "permissive",
    }
}

words! {
    /// How a topic counts for the score of a peer, to begin with.
    #[derive(Default)]
    ScorePreset {
        /// First deliveries count for a peer, invalid messages against it.
        #[default]
        Default = "default",
        /// Invalid messages weigh more, and longer.
        Strict = "strict",
        /// The topic counts for nothing.
        Off = "off",
    }
}

words! {
    /// Whether a node answers the questions of others for the hash table.
    KadMode {
        /// Answers, and is put into the tables of others.
        Server = "server",
        /// Only asks.
        Client = "client",
    }
}

words! {
    /// How the text of `publish.data` stands for bytes.
    Encoding {
        /// Numbers from 0 to 255 with commas between.
        Bytes = "bytes",
        /// The text's own UTF-8 bytes.
        Text = "text",
        /// Base64 (RFC 4648, padded).
        Base64 = "base64",
        /// Two hexadecimal digits a byte.
        Hex = "hex",
    }
}

words! {
    /// How log lines look.
    LogFormat {
        /// Time, level, target and message, with blanks between.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

impl From<&super::Log> for crate::logging::Settings {
    fn from(log: &super::Log) -> Self {
        Self { format: log.format.into(), level: log.level.clone(), buffer: log.buffer }
    }
}

impl From<LogFormat> for crate::logging::Format {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Text => Self::Text,
            LogFormat::Json => Self::Json,
        }
    }
}

words! {
    /// Which resolver is asked.
    Backend {
        /// hickory-resolver (feature `hickory`).
        Hickory = "hickory",
        /// async-dns, its limits guarded (feature `async-dns`).
        AsyncDns = "async-dns",
    }
}

impl Default for Backend {
    /// hickory where it was compiled in.
    fn default() -> Self {
        if cfg!(feature = "hickory") || !cfg!(feature = "async-dns") { Self::Hickory } else { Self::AsyncDns }
    }
}

text_kind!(
    Executor as Self,
    "\"smol\" or \"async-std\"",
    |text| match text {
        "smol" => Ok(Self::Smol),
        "async-std" if cfg!(feature = "async-std") => Ok(Self::AsyncStd),
        "async-std" => Err("this binary was built without the feature async-std".into()),
        _ => Err(String::new()),
    },
    |executor| match executor {
        Executor::Smol => "smol".into(),
        Executor::AsyncStd => "async-std".into(),
    }
);

/// Where records of the hash table are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// In memory: gone when the node stops.
    Memory,
    /// In a file.
    File(PathBuf),
}

text_kind!(
    Store as Self,
    "\"memory\" or a path such as \"/var/lib/smidge/records\"",
    |text| match text {
        "memory" => Ok(Self::Memory),
        _ if text.contains('/') && !text.contains('\0') => Ok(Self::File(text.into())),
        _ => Err("is neither \"memory\" nor has a \"/\" in it".into()),
    },
    |store| match store {
        Store::Memory => "memory".into(),
        Store::File(path) => path.display().to_string(),
    }
);

/// Where the HTTP API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiListen {
    /// Nowhere.
    Off,
    /// On a TCP address; port 0 picks one.
    Tcp(SocketAddr),
    /// On a Unix socket.
    Unix(PathBuf),
}

text_kind!(
    ApiListen as Self,
    "IP:PORT, \"unix:/PATH\" or \"off\"",
    |text| match (text, text.strip_prefix("unix:")) {
        ("off", _) => Ok(Self::Off),
        (_, Some(path)) if !path.starts_with('/') => Err("the path of the socket is not absolute".into()),
        (_, Some(path)) if path.len() > 107 => Err("the path of the socket is longer than 107 bytes".into()),
        (_, Some(path)) => Ok(Self::Unix(path.into())),
        _ => match text.strip_prefix("localhost:").map(str::parse) {
            Some(Ok(port)) => Ok(Self::Tcp(([127, 0, 0, 1], port).into())),
            _ => text.parse().map(Self::Tcp).map_err(|_| "is no address with a port".into()),
        },
    },
    |listen| match listen {
        ApiListen::Off => "off".into(),
        ApiListen::Tcp(addr) => addr.to_string(),
        ApiListen::Unix(path) => format!("unix:{}", path.display()),
    }
);

/// A text that no log, no `Debug` and no answer shows. It is wiped from memory when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// What stands in its place wherever it would be shown.
    pub const MASK: &'static str = "********";

    /// Whether `given` is the secret, in a time that depends on nothing but the length of `given`.
    pub fn matches(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let differs = given.iter().enumerate().fold(own.len() ^ given.len(), |differs, (i, byte)| {
            // A secret is never empty where a configuration was read.
            differs | usize::from(byte ^ own.get(i % own.len().max(1)).copied().unwrap_or(0))
        });
        std::hint::black_box(differs) == 0
    }

    /// The secret itself, for where it must be handed on.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Self::MASK)
    }
}

text_kind!(
    Secret as Self,
    "printable ASCII characters without blanks",
    |text| match text {
        "" => Err("an empty secret".into()),
        _ if !text.bytes().all(|b| b.is_ascii_graphic()) => Err("has a blank or a special character".into()),
        _ if text.len() > 4096 => Err("is longer than 4096 bytes".into()),
        _ => Ok(Self::from(text.to_owned())),
    },
    |_| Secret::MASK.into(),
    secret = true
);
