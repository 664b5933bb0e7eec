//! Which cipher the packets of a connection are sealed with: what both processors are good at.
//!
//! With instructions for it, AES-GCM is the cheaper one (bench/RESULTS.md: a stream costs half of the
//! processor time); without, as on a Raspberry Pi up to the 4, ChaCha20-Poly1305 is. A client names first what it prefers, and a server takes that, unless
//! it has no such instructions itself: then it takes ChaCha20 whatever the client prefers.

use rustls::{
    SupportedCipherSuite,
    crypto::ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    },
};

/// All suites of TLS 1.3 that QUIC has, the preferred one first.
pub(super) fn by_preference(has_aes: bool) -> Vec<SupportedCipherSuite> {
    if has_aes {
        vec![TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256]
    } else {
        vec![TLS13_CHACHA20_POLY1305_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_AES_128_GCM_SHA256]
    }
}

/// Whether this processor has instructions for AES and for the multiplication of GCM.
pub(super) fn has_aes() -> bool {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    return std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    // On 32-bit ARM the instructions cannot be asked for with a stable compiler; no Pi of that kind has them.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
    return false;
}
