//! Which keys of a file are used, and what is said of its other lines.

use super::key;
use crate::admission::Keyring;

#[test]
fn a_file_without_a_good_key_is_refused_in_words_that_give_nothing_away() {
    let good = key().encode().to_string();
    let encoded = good.strip_prefix("smidge-network-key-1:").unwrap();
    let many: String = (0..20).map(|_| "x\n").collect();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    let rows: [(&[u8], &str); 10] = [
        (b"", "holds no key: make one with smidge key network"),
        (b"# nothing yet\n\n", "holds no key: make one with smidge key network"),
        (encoded.as_bytes(), "holds no good key: line 1 does not begin with \"smidge-network-key-1:\""),
        (b"smidge-network-key-2:AAAA", "holds no good key: line 1 is a network key of a newer version"),
        (b"# a\nsmidge-network-key-1:AAAA", "holds no good key: line 2 has 3 bytes, where a key has 32"),
        (b"smidge-network-key-1:?", "holds no good key: line 1 is not base64"),
        (b"\xff\xfe", "holds no good key: line 1 is not text"),
        (b"\xff\n\nsmidge-network-key-1:?\n", "holds no good key: line 1 is not text; line 3 is not base64"),
        (&[b'#'; 9000], "is larger than 8192 bytes"),
        // Each of many bad lines would be a longer text than the file.
        (many.as_bytes(), "; and 12 more"),
    ];
    for (bytes, expected) in rows {
        std::fs::write(&path, bytes).unwrap();
        let error = Keyring::read(&path).expect_err(expected);
        assert!(
            error.why == expected || expected.starts_with("; ") && error.why.ends_with(expected),
            "{error}"
        );
        assert_eq!(error.path, path);
    }
    assert_eq!(Keyring::read(dir.path()).expect_err("a directory").why, "is not a file");
    let missing = Keyring::read(&dir.path().join("none")).expect_err("missing");
    assert_eq!(missing.why, "cannot be read");
    assert_eq!(missing.source.map(|e| e.kind()), Some(std::io::ErrorKind::NotFound));
}

#[test]
fn a_bad_line_never_spoils_the_good_keys() {
    let keys: Vec<_> = (0..9).map(|_| key()).collect();
    let texts: Vec<_> = keys.iter().map(|key| key.encode().to_string()).collect();
    let (a, b) = (texts[0].as_str(), texts[1].as_str());
    let cut = &a[..a.len() - 4];
    let secret = a.strip_prefix("smidge-network-key-1:").unwrap();
    let nine = texts.join("\n");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    // What a file holds, which keys are used, and what is said.
    let rows: [(Vec<u8>, &[usize], Option<&str>); 12] = [
        (format!("{a}\n{b}\n").into(), &[0, 1], None),
        (format!("# the key\r\n  {a}  \r\n").into(), &[0], None),
        (format!("\u{feff}{a}\n").into(), &[0], None),
        (format!("\n{cut}\n{b}\n").into(), &[1], Some("left out: line 2 has 30 bytes, where a key has 32")),
        (format!("{b}\n{a}=\n").into(), &[1], Some("left out: line 2 is not base64")),
        (
            format!("{b}\n{secret}").into(),
            &[1],
            Some("left out: line 2 does not begin with \"smidge-network-key-1:\""),
        ),
        (
            format!("smidge-network-key-2:AAAA\n{a}").into(),
            &[0],
            Some("left out: line 1 is a network key of a newer version"),
        ),
        ([&b"\xff\xfe\n"[..], a.as_bytes()].concat(), &[0], Some("left out: line 1 is not text")),
        (
            format!("{a}\n{b}\n{a}\n").into(),
            &[0, 1],
            Some("left out: line 3 holds a key for the second time"),
        ),
        (
            format!("-----BEGIN-----\n{a}\n# b\n\u{fffd}\n{b}\nsmidge-network-key-1:").into(),
            &[0, 1],
            Some(
                "left out: line 1 does not begin with \"smidge-network-key-1:\"; line 4 does not begin with \
                 \"smidge-network-key-1:\"; line 6 has 0 bytes, where a key has 32",
            ),
        ),
        (
            nine.into(),
            &[0, 1, 2, 3, 4, 5, 6, 7],
            Some("left out: line 9 holds a key more than the 8 that a node may have"),
        ),
        ([a.as_bytes(), &b"\nx".repeat(10)[..]].concat(), &[0], Some("; and 2 more")),
    ];
    for (bytes, used, said) in rows {
        std::fs::write(&path, bytes).unwrap();
        let ring = Keyring::read(&path).unwrap();
        let expected: Vec<_> = used.iter().map(|n| keys[*n].fingerprint()).collect();
        assert_eq!(ring.fingerprints(), expected, "{said:?}");
        match (said, ring.left_out()) {
            (None, None) => {}
            (Some(said), Some(left_out)) => {
                let whole = left_out.to_string();
                let held = if said.starts_with("; ") { whole.ends_with(said) } else { left_out.why == said };
                assert!(held && whole.starts_with(&format!("{}: ", path.display())), "{said}: {whole}");
                assert!(!whole.contains(&secret[..8]), "a key is never shown: {whole}");
            }
            (said, left_out) => panic!("{said:?} expected, not {left_out:?}"),
        }
        assert!(!format!("{ring:?}").contains(&secret[..8]), "a key is never shown");
    }
}
