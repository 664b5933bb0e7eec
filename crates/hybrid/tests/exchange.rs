//! The hybrid against that of aws-lc, and shares that are none.

#![allow(clippy::unwrap_used, reason = "a test")]

use rustls::{
    NamedGroup,
    crypto::{SupportedKxGroup, ring::kx_group::X25519},
};
use smidge_hybrid::X25519MLKEM768;

/// The length of ML-KEM-768's encapsulation key, which a client sends.
const KEY: usize = 1184;
/// The length of its ciphertext, which a server sends.
const CIPHERTEXT: usize = 1088;

/// aws-lc's: the one that stock rust-libp2p uses.
fn theirs() -> &'static dyn SupportedKxGroup {
    rustls::crypto::aws_lc_rs::kx_group::X25519MLKEM768
}

#[test]
fn both_sides_come_to_the_same_secret_also_with_another_implementation() {
    let ours = X25519MLKEM768;
    for (client, server) in [(ours, ours), (ours, theirs()), (theirs(), ours)] {
        let started = client.start().unwrap();
        assert_eq!(started.pub_key().len(), KEY + 32);
        let answer = server.start_and_complete(started.pub_key()).unwrap();
        assert_eq!(answer.pub_key.len(), CIPHERTEXT + 32);
        assert_eq!(answer.group, started.group());
        let secret = started.complete(&answer.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), answer.secret.secret_bytes());
        assert_eq!(secret.secret_bytes().len(), 64);
    }
}

#[test]
fn a_server_that_knows_x25519_alone_is_served_by_the_same_key() {
    let started = X25519MLKEM768.start().unwrap();
    let (group, share) = started.hybrid_component().unwrap();
    assert_eq!((group, share), (NamedGroup::X25519, &started.pub_key()[KEY..]));
    let answer = X25519.start_and_complete(share).unwrap();
    let secret = started.complete_hybrid_component(&answer.pub_key).unwrap();
    assert_eq!(secret.secret_bytes(), answer.secret.secret_bytes());
}

#[test]
fn shares_that_cannot_be_are_refused_and_changed_ones_give_another_secret() {
    let started = X25519MLKEM768.start().unwrap();
    let good = started.pub_key().to_vec();
    // Coefficients above the modulus: every one of 12 bits is 4095.
    let mut above = good.clone();
    above[..KEY - 32].fill(0xff);
    // A point of small order: X25519 would give zeros.
    let mut small = good.clone();
    small[KEY..].fill(0);
    for bad in [&[][..], &good[1..], &good[..KEY], &[&good[..], &[0]].concat(), &above, &small] {
        X25519MLKEM768.start_and_complete(bad).err().unwrap();
    }
    let answer = X25519MLKEM768.start_and_complete(&good).unwrap();
    for length in [0, 1, CIPHERTEXT, CIPHERTEXT + 31] {
        X25519MLKEM768.start().unwrap().complete(&answer.pub_key[..length]).err().unwrap();
    }
    let mut changed = answer.pub_key.clone();
    changed[7] ^= 1;
    let secret = started.complete(&changed).unwrap();
    assert_ne!(secret.secret_bytes(), answer.secret.secret_bytes());
}
