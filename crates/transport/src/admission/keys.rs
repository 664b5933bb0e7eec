//! Network keys: how they are made, kept in a file, and distinguished without being shown.

use std::{
    fmt,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use ring::{
    digest, hkdf,
    rand::{SecureRandom, SystemRandom},
};
use zeroize::Zeroizing;

/// What a key begins with when it is written down: format and version.
const PREFIX: &str = "smidge-network-key-1:";
/// A key's length in bytes.
const LENGTH: usize = 32;
/// Keys that one file may hold.
const MOST_KEYS: usize = 8;
/// The largest key file read, in bytes.
const LARGEST: u64 = 8 << 10;
/// Bad lines of a file that are listed.
const MOST_SHOWN: usize = 8;
/// What some editors put in front of a text (U+FEFF in UTF-8).
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Keeps what is derived here apart from whatever else is derived from the same key.
const SALT: &[u8] = b"smidge/admission/v1";

/// 32 random bytes that all nodes of one network know, and nobody else.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkKey(Zeroizing<[u8; LENGTH]>);

/// Shows the fingerprint only.
impl fmt::Debug for NetworkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkKey({})", self.fingerprint())
    }
}

impl NetworkKey {
    /// A new key.
    ///
    /// # Errors
    /// When the operating system gives no random bytes.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        let random = SystemRandom::new();
        random.fill(&mut *bytes).map_err(|_| io::Error::other("no random bytes can be had"))?;
        Ok(Self(bytes))
    }

    /// Reads a key as [`encode`](Self::encode) writes it.
    ///
    /// # Errors
    /// What is wrong with the text, which is not quoted.
    pub fn decode(text: &str) -> Result<Self, String> {
        let encoded = text.strip_prefix(PREFIX).ok_or_else(|| match text.split_once(':') {
            Some((word, _)) if word.starts_with("smidge-network-key-") => {
                "is a network key of a newer version".to_owned()
            }
            _ => format!("does not begin with {PREFIX:?}"),
        })?;
        let bytes = data_encoding::BASE64.decode(encoded.as_bytes()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| "is not base64".to_owned())?;
        let key = <[u8; LENGTH]>::try_from(bytes.as_slice());
        key.map(|key| Self(Zeroizing::new(key)))
            .map_err(|_| format!("has {} bytes, where a key has {LENGTH}", bytes.len()))
    }

    /// The key as text: secret.
    pub fn encode(&self) -> Zeroizing<String> {
        let encoded = Zeroizing::new(data_encoding::BASE64.encode(&*self.0));
        Zeroizing::new([PREFIX, &encoded].concat())
    }

    /// Eight hexadecimal digits that tell keys apart and give nothing away. Never sent to a peer.
    pub fn fingerprint(&self) -> String {
        let hash = digest::digest(&digest::SHA256, &*self.derive(b"fingerprint"));
        data_encoding::HEXLOWER.encode(&hash.as_ref()[..4])
    }

    /// HKDF-SHA256 (RFC 5869) of the key, with the salt `smidge/admission/v1` and `info`, 32 bytes.
    pub(super) fn derive(&self, info: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut out = Zeroizing::new([0; 32]);
        let info = [info];
        let filled = hkdf::Salt::new(hkdf::HKDF_SHA256, SALT)
            .extract(&*self.0)
            .expand(&info, hkdf::HKDF_SHA256)
            .and_then(|key| key.fill(&mut *out));
        // Fails for lengths that HKDF cannot give; 32 bytes it can.
        debug_assert!(filled.is_ok());
        out
    }
}

/// What is wrong with a file of keys. No part of the file is quoted.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", path.display())]
pub struct KeyFileError {
    /// Which file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// What the operating system said, where it cannot be read.
    pub source: Option<io::Error>,
}

/// The same, of a file that is known.
type Fault = (String, Option<io::Error>);

/// The keys of a node: the first proves, all are accepted. Clones are the same ring, so that keys can be
/// changed while a node runs; connections that stand are not touched by it.
#[derive(Clone)]
pub struct Keyring {
    keys: Arc<RwLock<Vec<NetworkKey>>>,
    left_out: Option<Arc<KeyFileError>>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

impl Keyring {
    /// A ring of one key.
    pub fn new(key: NetworkKey) -> Self {
        Self::of(vec![key], None)
    }

    fn of(keys: Vec<NetworkKey>, left_out: Option<KeyFileError>) -> Self {
        Self { keys: Arc::new(RwLock::new(keys)), left_out: left_out.map(Arc::new) }
    }

    /// Reads a file of one key a line, eight at most; blank lines and lines that begin with `#` are
    /// passed over. Any other line that gives no key is left out, see [`left_out`](Self::left_out).
    ///
    /// # Errors
    /// [`KeyFileError`]: it cannot be read, is too large, or holds no good key.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let error = |(why, source)| KeyFileError { path: path.into(), why, source };
        let (keys, left_out) = read(path).map_err(error)?;
        Ok(Self::of(keys, left_out.map(|why| error((why, None)))))
    }

    /// Which lines of the file were left out, and why; none where all are good. The keys of the other
    /// lines are used.
    pub fn left_out(&self) -> Option<&KeyFileError> {
        self.left_out.as_deref()
    }

    /// Takes the keys of `other` in place of its own, and says whether they differ.
    pub fn replace(&self, other: &Self) -> bool {
        let new = other.keys();
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let differ = *keys != new;
        *keys = new;
        differ
    }

    /// The keys' fingerprints, the one that proves first.
    pub fn fingerprints(&self) -> Vec<String> {
        self.keys().iter().map(NetworkKey::fingerprint).collect()
    }

    /// 32 bytes from each key, the one that proves first, which say nothing of it: for what only this network's nodes are to
    /// compute. Another `info` gives others.
    pub fn derive(&self, info: &[u8]) -> Vec<Zeroizing<[u8; 32]>> {
        self.keys().iter().map(|key| key.derive(&[b"application/", info].concat())).collect()
    }

    /// The keys, the one that proves first. Never empty.
    pub(super) fn keys(&self) -> Vec<NetworkKey> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The good keys of a file, at least one, and which lines were left out.
fn read(path: &Path) -> Result<(Vec<NetworkKey>, Option<String>), Fault> {
    let unreadable = |error: io::Error| ("cannot be read".to_owned(), Some(error));
    let refuse = |why: String| Err((why, None));
    // Looked at before it is opened: opening a pipe would wait for its writer.
    if !path.metadata().map_err(unreadable)?.is_file() {
        return refuse("is not a file".into());
    }
    let mut text = Zeroizing::new(Vec::with_capacity(LARGEST as usize + 64));
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(LARGEST + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > LARGEST {
        return refuse(format!("is larger than {LARGEST} bytes"));
    }
    let (keys, bad) = parse(&text);
    match (keys.is_empty(), bad.is_empty()) {
        (true, true) => refuse("holds no key: make one with smidge key network".into()),
        (true, false) => refuse(format!("holds no good key: {}", listed(&bad))),
        (false, true) => Ok((keys, None)),
        (false, false) => Ok((keys, Some(format!("left out: {}", listed(&bad))))),
    }
}

/// The good keys, and what is wrong with each line that gives none.
fn parse(text: &[u8]) -> (Vec<NetworkKey>, Vec<String>) {
    let (mut keys, mut bad) = (Vec::new(), Vec::new());
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    for (line, text) in (1..).zip(text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii)) {
        if text.is_empty() || text.starts_with(b"#") {
            continue;
        }
        let key = std::str::from_utf8(text)
            .map_err(|_| "is not text".to_owned())
            .and_then(|text| NetworkKey::decode(text.trim()));
        match key {
            Ok(key) if keys.contains(&key) => {
                bad.push(format!("line {line} holds a key for the second time"));
            }
            Ok(_) if keys.len() == MOST_KEYS => {
                bad.push(format!("line {line} holds a key more than the {MOST_KEYS} that a node may have"));
            }
            Ok(key) => keys.push(key),
            Err(why) => bad.push(format!("line {line} {why}")),
        }
    }
    (keys, bad)
}

/// What is wrong with the first of many lines, and how many more there are.
fn listed(bad: &[String]) -> String {
    let (shown, rest) = bad.split_at(bad.len().min(MOST_SHOWN));
    let more = if rest.is_empty() { String::new() } else { format!("; and {} more", rest.len()) };
    format!("{}{more}", shown.join("; "))
}
