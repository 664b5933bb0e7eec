//! Every state a key file can be in.

use std::{os::unix::fs::PermissionsExt, thread};

use super::*;

#[test]
fn a_key_is_made_once_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/dir/key");
    let made = Identity::load_or_create(&path).unwrap();
    assert_eq!(made.origin(), &Origin::Created(path.clone()));
    assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no file is left over");

    let read = Identity::load_or_create(&path).unwrap();
    assert_eq!(read.origin(), &Origin::Loaded(path.clone()));
    assert_eq!(read.peer_id(), made.peer_id());
    assert_eq!(read.warnings(), &[] as &[String]);
    assert!(matches!(Identity::create(&path), Err(IdentityError::Exists(_))));
    assert!(made.peer_id().to_string().starts_with("12D3KooW"));
}

#[test]
fn base64_of_a_key_is_a_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let made = Identity::create(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 68);
    std::fs::write(&path, format!("  {}\n", data_encoding::BASE64.encode(&bytes))).unwrap();
    assert_eq!(Identity::load(&path).unwrap().peer_id(), made.peer_id());
}

#[test]
fn a_key_that_others_can_read_is_used_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    Identity::create(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o444)).unwrap();
    let warning = format!("{}: the key can be read by others (mode 444): chmod 600 it", path.display());
    assert_eq!(Identity::load(&path).unwrap().warnings(), &[warning]);
}

#[test]
fn a_file_that_is_no_key_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let key = Keypair::generate_ed25519().to_protobuf_encoding().unwrap();
    let mut other_public = key.clone();
    other_public[67] ^= 1;
    let rsa = [&[0x08, 0x00, 0x12, 0x04][..], b"1234"].concat();
    for (what, bytes, why) in [
        ("empty", vec![], "the key file is empty"),
        ("garbage", b"hello world".to_vec(), "holds no libp2p key (11 bytes, damaged or cut off)"),
        ("truncated", key[..40].to_vec(), "holds no libp2p key (40 bytes, damaged or cut off)"),
        ("two halves that differ", other_public, "holds no libp2p key (68 bytes, damaged or cut off)"),
        ("another type", rsa, "holds no libp2p key (8 bytes, damaged or cut off)"),
        ("too large", vec![7; 4096], "is larger than 512 bytes, no Ed25519 key"),
        ("PEM", b"-----BEGIN PRIVATE KEY-----\nMC4".to_vec(), "holds a PEM key, not a libp2p one"),
    ] {
        std::fs::write(&path, &bytes).unwrap();
        let error = Identity::load_or_create(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("{}: {why}", path.display()), "{what}");
        assert!(error.is_config() && error.hint().contains("backup"), "{what}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what}");
    }
}

#[test]
fn what_is_no_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = Identity::load_or_create(dir.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: is a directory, not a key file", dir.path().display()));
    let error = Identity::load_or_create(Path::new("/dev/null")).unwrap_err();
    assert_eq!(error.to_string(), "/dev/null: is a device, pipe or socket, not a key file");

    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Identity::load_or_create(&file.join("key")).unwrap_err();
    assert!(matches!(error, IdentityError::Io { .. }), "{error}");
    assert!(error.hint().contains(&file.display().to_string()), "{}", error.hint());
    let missing = Identity::load(&dir.path().join("none")).unwrap_err();
    assert!(matches!(missing, IdentityError::Missing(_)) && missing.hint().contains("key generate"));
}

#[test]
fn a_dangling_link_is_not_written_through() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &path).unwrap();
    assert!(Identity::load_or_create(&path).is_err());
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn nodes_that_start_at_once_end_with_one_key() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..20 {
        let path = dir.path().join(format!("key{round}"));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let path = path.clone();
                thread::spawn(move || Identity::load_or_create(&path).unwrap())
            })
            .collect();
        let all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let made = all.iter().filter(|one| matches!(one.origin(), Origin::Created(_))).count();
        assert_eq!(made, 1);
        assert!(all.iter().all(|one| one.peer_id() == all[0].peer_id()));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 20, "no file is left over");
}

#[test]
fn without_the_kernel_s_help_a_key_is_still_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two, path) = (dir.path().join("1"), dir.path().join("2"), dir.path().join("key"));
    std::fs::write(&one, "1").unwrap();
    std::fs::write(&two, "2").unwrap();
    place(&one, &path).unwrap();
    assert_eq!(place(&two, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read(&path).unwrap(), b"1");
}

#[test]
fn a_derived_key_is_what_hkdf_gives_and_the_same_each_time() {
    // Worked out with another implementation of HMAC-SHA256 and Ed25519.
    let (secret, name) = (b"0123456789abcdef", "p2p_peer.1");
    let one = Identity::derive(secret, name).unwrap();
    assert_eq!(one.peer_id().to_string(), "12D3KooWGnK3LFgoTonWBJTuN93mRYFLSHDWdcLgsHLw4apBzwnR");
    assert_eq!(one.origin(), &Origin::Derived(name.into()));
    assert_eq!(Identity::derive(secret, name).unwrap().peer_id(), one.peer_id());
    for (secret, name) in
        [(b"0123456789abcdef", "p2p_peer.2"), (b"0123456789abcdeF", name), (secret, "p2p_peer.1\0")]
    {
        assert_ne!(Identity::derive(secret, name).unwrap().peer_id(), one.peer_id(), "{name}");
    }
}

#[test]
fn nothing_is_derived_of_too_little() {
    for (secret, name, why) in [
        ("", "a", "no key is derived: the secret has less than 16 bytes"),
        ("0123456789abcde", "a", "no key is derived: the secret has less than 16 bytes"),
        ("0123456789abcdef", "", "no key is derived: the name is empty"),
    ] {
        let error = Identity::derive(secret.as_bytes(), name).unwrap_err();
        assert_eq!(error.to_string(), why);
        assert!(error.is_config() && error.hint().contains("derive_name"));
    }
}

#[test]
fn debug_shows_no_secret() {
    let one = Identity::ephemeral();
    let secret = one.keypair().to_protobuf_encoding().unwrap();
    let shown = format!("{one:?}");
    assert_eq!(shown, format!("Identity {{ peer_id: {:?}, origin: Ephemeral }}", one.peer_id()));
    assert!(!shown.contains(&data_encoding::HEXLOWER.encode(&secret[4..12])));
    assert_ne!(Identity::ephemeral().peer_id(), one.peer_id());
}
