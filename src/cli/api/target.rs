//! Which node is asked: what a URL and the environment say of it. Nothing here connects.

use std::path::PathBuf;

use zeroize::Zeroizing;

use super::{Api, env};
use crate::{
    cli::{Failure, exit},
    config::Secret,
    runtime::Handle,
};

/// Which node is to be asked, before anything runs.
pub(in crate::cli) struct Where {
    url: String,
    place: Place,
    token: Option<Secret>,
    verb: &'static str,
}

impl Where {
    pub(in crate::cli) fn new(url: String, verb: &'static str) -> Result<Self, Failure> {
        let place = Place::parse(&url).map_err(|why| {
            Failure::new(exit::USAGE, verb, format!("--api {url}: {why}"))
                .hint("write http://HOST:PORT or unix:/PATH")
        })?;
        // As the node itself reads its token: a probe in the node's container needs nothing more.
        let token = match (env("SMIDGE__API__TOKEN"), env("SMIDGE__API__TOKEN__FILE")) {
            (Some(token), _) => Some(Secret::from(token)),
            (None, Some(file)) => {
                let text = std::fs::read_to_string(&file).map(Zeroizing::new).map_err(|e| {
                    Failure::new(exit::FAILED, verb, format!("SMIDGE__API__TOKEN__FILE: {file}: {e}"))
                })?;
                Some(Secret::from(text.trim().to_owned()))
            }
            (None, None) => None,
        };
        // Nothing that would end the header early gets into it.
        let token = token.filter(|token| token.reveal().bytes().all(|b| b.is_ascii_graphic()));
        Ok(Self { url, place, token, verb })
    }

    /// With another token than the environment's, where there is one.
    pub(in crate::cli) fn token(self, token: Option<Secret>) -> Self {
        Self { token: token.or(self.token), ..self }
    }

    pub(in crate::cli) fn open(self, runtime: Handle) -> Api {
        let Self { url, place, token, verb } = self;
        Api { runtime, url, place, token, verb, kept: None }
    }
}

/// How its API is reached.
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl Place {
    fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix("unix:") {
            return if path.is_empty() { Err("an empty path".into()) } else { Ok(Self::Unix(path.into())) };
        }
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => return Err(format!("{scheme} is not spoken")),
            None => url,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("{port:?} is no port"))?)
            }
            _ => (rest, 80),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
        match host {
            "" => Err("no host".into()),
            _ if !host.chars().all(plain) => Err(format!("{host:?} is no host")),
            _ if port == 0 => Err("port 0 cannot be asked".into()),
            _ => Ok(Self::Tcp { host: host.into(), port }),
        }
    }

    /// What the `Host` header says.
    pub(super) fn host(&self) -> String {
        match self {
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_parsed_or_refused() {
        for (url, expected) in [
            ("http://127.0.0.1:4080", "127.0.0.1:4080"),
            ("http://localhost:1/", "localhost:1"),
            ("http://[::1]:4080", "[::1]:4080"),
            ("http://node", "node:80"),
            ("http://[::1]", "[::1]:80"),
            ("bootstrap:4080", "bootstrap:4080"),
            ("unix:/run/smidge.sock", "localhost"),
        ] {
            assert_eq!(Place::parse(url).map(|p| p.host()), Ok(expected.into()), "{url}");
        }
        for url in [
            "",
            "http://",
            "https://a:1",
            "http://a:x",
            "http://a:0",
            "http://a:99999",
            "unix:",
            "http://a b:1",
            "http://a\r\nb:1",
            "http://a/b:1",
        ] {
            assert!(Place::parse(url).is_err(), "{url:?}");
        }
    }
}
