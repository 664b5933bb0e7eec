//! Our TLS against libp2p-tls, the specification's certificates, and certificates of other kinds.

use libp2p::identity::Keypair;
use rcgen::{CertificateParams, CustomExtension, KeyPair, SignatureAlgorithm, date_time_ymd};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, NamedGroup, ServerConfig, ServerConnection,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};

use super::{certificate::Flaw, *};

/// The libp2p Public Key Extension.
const OID: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 1];

// The test vectors of libp2p/specs tls/tls.md: three certificates, and one whose host did not sign it.
const ED25519: &str = "\
    308201773082011ea003020102020900f5bd0debaa597f52300a06082a8648ce3d04030230003020170d3735303130313030\
    303030305a180f34303936303130313030303030305a30003059301306072a8648ce3d020106082a8648ce3d030107034200\
    046bf9871220d71dcb3483ecdfcbfcc7c103f8509d0974b3c18ab1f1be1302d643103a08f7a7722c1b247ba3876fe2c59e26\
    526f479d7718a85202ddbe47562358a37f307d307b060a2b0601040183a25a01010101ff046a30680424080112207fda2185\
    6709c5ae12fd6e8450623f15f11955d384212b89f56e7e136d2e17280440aaa6bffabe91b6f30c35e3aa4f94b1188fed96b0\
    ffdd393f4c58c1c047854120e674ce64c788406d1c2c4b116581fd7411b309881c3c7f20b46e54c7e6fe7f0f300a06082a86\
    48ce3d040302034700304402207d1a1dbd2bda235ff2ec87daf006f9b04ba076a5a5530180cd9c2e8f6399e09d0220458527\
    178c7e77024601dbb1b256593e9b96d961b96349d1f560114f61a87595";
const FORGED: &str = "\
    308201773082011da003020102020830a73c5d896a1109300a06082a8648ce3d04030230003020170d373530313031303030\
    3030305a180f34303936303130313030303030305a30003059301306072a8648ce3d020106082a8648ce3d03010703420004\
    bbe62df9a7c1c46b7f1f21d556deec5382a36df146fb29c7f1240e60d7d5328570e3b71d99602b77a65c9b3655f62837f8d6\
    6b59f1763b8c9beba3be07778043a37f307d307b060a2b0601040183a25a01010101ff046a3068042408011220ec8094573a\
    fb9728088860864f7bcea2d4fd412fef09a8e2d24d482377c20db60440ecabae8354afa2f0af4b8d2ad871e865cb5a7c0c8d\
    3dbdbf42de577f92461a0ebb0a28703e33581af7d2a4f2270fc37aec6261fcc95f8af08f3f4806581c730a300a06082a8648\
    ce3d040302034800304502202dfb17a6fa0f94ee0e2e6a3b9fb6e986f311dee27392058016464bd130930a61022100ba4b93\
    7a11c8d3172b81e7cd04aedb79b978c4379c2b5b24d565dd5d67d3cb3c";
const ECDSA: &str = "\
    308201c030820166a003020102020900eaf419a6e3edb4a6300a06082a8648ce3d04030230003020170d3735303130313030\
    303030305a180f34303936303130313030303030305a30003059301306072a8648ce3d020106082a8648ce3d030107034200\
    048dbf1116c7c608d6d5292bd826c3feb53483a89fce434bf64538a359c8e07538ff71f6766239be6a146dcc1a5f3bb934bc\
    d4ae2ae1d4da28ac68b4a20593f06ba381c63081c33081c0060a2b0601040183a25a01010101ff0481ae3081ab045f080312\
    5b3059301306072a8648ce3d020106082a8648ce3d0301070342000484b93fa456a74bd0153919f036db7bc63c802f055bc7\
    023395d0203de718ee0fc7b570b767cdd858aca6c7c4113ff002e78bd2138ac1a3b26dde3519e06979ad04483046022100bc\
    84014cea5a41feabdf4c161096564b9ccf4b62fbef4fe1cd382c84e11101780221009204f086a84cb8ed8a9ddd7868dc90c7\
    92ee434adf62c66f99a08a5eba11615b300a06082a8648ce3d0403020348003045022054b437be9a2edf591312d68ff24bf9\
    1367ad4143f76cf80b5658f232ade820da022100e23b48de9df9c25d4c83ddddf75d2676f0b9318ee2a6c88a736d85eab94a\
    912f";
const SECP256K1: &str = "\
    3082018230820128a003020102020900f3b305f55622cfdf300a06082a8648ce3d04030230003020170d3735303130313030\
    303030305a180f34303936303130313030303030305a30003059301306072a8648ce3d020106082a8648ce3d030107034200\
    0458f7e9581748ff9bdd933b655cc0e5552a1248f840658cc221dec2186b5a2fe4641b86ab7590a3422cdbb1000cf97662f2\
    7e5910d7569f22feed8829c8b52e0fa38188308185308182060a2b0601040183a25a01010101ff0471306f04250802122102\
    6b053094d1112bce799dc8026040ae6d4eb574157929f1598172061f753d9b1b04463044022040712707e97794c478d93989\
    aaa28ae1f71c03af524a8a4bd2d98424948a782302207b61b7f074b696a25fb9e0059141a811cccc4cc28042d9301b9b2a40\
    15e87470300a06082a8648ce3d04030203480030450220143ae4d86fdc8675d2480bb6912eca5e39165df7f572d836aa2f2d\
    6acfab13f8022100831d1979a98f0c4a6fb5069ca374de92f1a1205c962a6d90ad3d7554cb7d9df4";

fn read(der: &[u8]) -> Result<String, Flaw> {
    Certificate::read_now(der).map(|certificate| certificate.peer_id().to_string())
}

#[test]
fn the_specifications_certificates_are_read_as_it_says() {
    let der = |hex: &str| data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
    assert_eq!(read(&der(ED25519)).unwrap(), "12D3KooWJRSrypvnpHgc6ZAgyCni4KcSmbV7uGRaMw5LgMKT18fq");
    assert_eq!(read(&der(FORGED)), Err(Flaw::NotTheHosts));
    // Right, but of hosts whose kinds of keys are not in this build.
    assert_eq!(read(&der(ECDSA)), Err(Flaw::HostKey));
    assert_eq!(read(&der(SECP256K1)), Err(Flaw::HostKey));
}

#[test]
fn libp2p_tls_reads_ours_and_we_read_its() {
    let host = Keypair::generate_ed25519();
    let (ours, _) = generate(&host).unwrap();
    assert_eq!(libp2p_tls::certificate::parse(&ours).unwrap().peer_id(), host.public().to_peer_id());
    assert_eq!(read(&ours).unwrap(), host.public().to_peer_id().to_string());
    let (theirs, _) = libp2p_tls::certificate::generate(&host).unwrap();
    assert_eq!(read(&theirs).unwrap(), host.public().to_peer_id().to_string());
}

#[test]
fn a_certificate_cut_short_or_with_something_behind_it_is_none() {
    let (der, _) = generate(&Keypair::generate_ed25519()).unwrap();
    for length in 0..der.len() {
        assert!(matches!(read(&der[..length]), Err(Flaw::Encoding(_))), "{length}");
    }
    assert_eq!(read(&[&der[..], &[0]].concat()), Err(Flaw::Encoding("no certificate")));
}

/// A certificate of `key`, valid from and to the first of January of these years, for a new host, with the
/// extension repeated `times` times.
fn crafted(key: &KeyPair, years: (i32, i32), times: usize) -> CertificateDer<'static> {
    let host = Keypair::generate_ed25519();
    let signature = host.sign(&[&b"libp2p-tls-handshake:"[..], &key.public_key_der()].concat()).unwrap();
    let content = der::element(
        der::SEQUENCE,
        &[
            &der::element(der::OCTET_STRING, &[&host.public().encode_protobuf()]),
            &der::element(der::OCTET_STRING, &[&signature]),
        ],
    );
    let mut params = CertificateParams::new(vec![]).unwrap();
    for _ in 0..times {
        params.custom_extensions.push(CustomExtension::from_oid_content(&OID, content.clone()));
    }
    (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
    params.self_signed(key).unwrap().der().clone()
}

fn key(algorithm: &'static SignatureAlgorithm) -> KeyPair {
    KeyPair::generate_for(algorithm).unwrap()
}

/// An RSA key made for these tests: nothing here can make one.
fn rsa() -> KeyPair {
    let der = PrivateKeyDer::try_from(&include_bytes!("rsa2048.pk8")[..]).unwrap();
    KeyPair::from_der_and_sign_algo(&der, &rcgen::PKCS_RSA_SHA256).unwrap()
}

#[test]
fn times_are_those_of_the_calendar_and_the_last_second_counts() {
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    let algorithms = algorithms().all;
    let at = |der: &[u8], seconds: i64| {
        let since = std::time::Duration::from_secs(seconds.try_into().unwrap());
        Certificate::read(der, rustls::pki_types::UnixTime::since_unix_epoch(since), algorithms).map(|_| ())
    };
    for (years, first, last) in [
        // UTCTime on both sides, before 1970, and GeneralizedTime from 2050 on.
        ((2000, 2001), 946_684_800, 978_307_200),
        ((1950, 2049), 0, 2_493_072_000),
        ((2100, 2101), 4_102_444_800, 4_133_980_800),
    ] {
        let der = crafted(&key, years, 1);
        assert_eq!(at(&der, first), Ok(()), "{years:?}");
        assert_eq!(at(&der, last), Ok(()), "{years:?}");
        assert_eq!(at(&der, last + 1), Err(Flaw::Expired), "{years:?}");
        if first > 0 {
            assert_eq!(at(&der, first - 1), Err(Flaw::NotYetValid), "{years:?}");
        }
    }
}

#[test]
fn the_hosts_key_stands_in_a_certificate_once() {
    let key = key(&rcgen::PKCS_ECDSA_P256_SHA256);
    assert!(read(&crafted(&key, (2001, 4000), 1)).is_ok());
    assert_eq!(read(&crafted(&key, (2001, 4000), 2)), Err(Flaw::Encoding("two keys of a host")));
    assert_eq!(read(&crafted(&key, (2001, 4000), 0)), Err(Flaw::NoHostKey));
}

/// One handshake in memory: the group and the suite agreed on, at both ends the same, or what the first to
/// fail says.
fn handshake(client: ClientConfig, server: ServerConfig) -> Result<(NamedGroup, CipherSuite), rustls::Error> {
    let name = ServerName::try_from("l").unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
    let mut server = ServerConnection::new(Arc::new(server)).unwrap();
    // A handshake takes two flights each way.
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            server.read_tls(&mut wire).unwrap();
            server.process_new_packets()?;
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = &wire[..];
        while !wire.is_empty() {
            client.read_tls(&mut wire).unwrap();
            client.process_new_packets()?;
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(client.alpn_protocol(), Some(ALPN));
    let group = client.negotiated_key_exchange_group().unwrap().name();
    assert_eq!(server.negotiated_key_exchange_group().unwrap().name(), group);
    let suite = client.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(server.negotiated_cipher_suite().unwrap().suite(), suite);
    Ok((group, suite))
}

fn theirs() -> (ClientConfig, ServerConfig) {
    let keypair = Keypair::generate_ed25519();
    (
        libp2p_tls::make_client_config(&keypair, None).unwrap(),
        libp2p_tls::make_server_config(&keypair).unwrap(),
    )
}

fn ours() -> (ClientConfig, ServerConfig) {
    configs(&Keypair::generate_ed25519()).unwrap()
}

#[test]
fn a_handshake_with_libp2p_tls_is_safe_from_quantum_computers_in_both_directions() {
    for (client, server) in [(ours().0, theirs().1), (theirs().0, ours().1), (ours().0, ours().1)] {
        assert_eq!(handshake(client, server).unwrap().0, NamedGroup::X25519MLKEM768);
    }
}

#[test]
fn packets_are_sealed_with_aes_where_both_processors_have_instructions_for_it() {
    let on = |has_aes| configs_on(has_aes, &Keypair::generate_ed25519()).unwrap();
    for (client, server, expected) in [
        (true, true, CipherSuite::TLS13_AES_128_GCM_SHA256),
        (true, false, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        (false, true, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
        (false, false, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256),
    ] {
        assert_eq!(handshake(on(client).0, on(server).1).unwrap().1, expected, "{client} {server}");
    }
    // Whoever prefers ChaCha20 without saying why gets it.
    let suite = handshake(theirs().0, on(true).1).unwrap().1;
    assert_eq!(suite, CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
}

#[test]
fn one_that_knows_a_single_older_group_is_served() {
    let only = |group| {
        let groups = rustls::crypto::aws_lc_rs::default_provider().kx_groups;
        let groups = groups.into_iter().filter(|known| known.name() == group).collect();
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        provider.cipher_suites.truncate(3);
        provider.kx_groups = groups;
        Arc::new(provider)
    };
    for group in [NamedGroup::X25519, NamedGroup::secp256r1, NamedGroup::secp384r1] {
        let (our_client, our_server) = ours();
        let shown = Arc::new(Shown(our_client.client_auth_cert_resolver.resolve(&[], &[]).unwrap()));
        let verifier = Arc::new(Verifier(algorithms()));
        let mut client = ClientConfig::builder_with_provider(only(group))
            .with_protocol_versions(VERSIONS)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(shown.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        let mut server = ServerConfig::builder_with_provider(only(group))
            .with_protocol_versions(VERSIONS)
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(shown);
        server.alpn_protocols = vec![ALPN.to_vec()];
        assert_eq!(handshake(client, our_server).unwrap().0, group);
        assert_eq!(handshake(our_client, server).unwrap().0, group);
    }
}

#[test]
fn certificates_of_every_kind_of_key_are_believed_with_their_holders_signature_and_no_others() {
    let kinds = [
        key(&rcgen::PKCS_ECDSA_P256_SHA256),
        key(&rcgen::PKCS_ECDSA_P384_SHA384),
        key(&rcgen::PKCS_ED25519),
        rsa(),
    ];
    for key in kinds {
        let certificate = crafted(&key, (2001, 4000), 1);
        read(&certificate).unwrap();
        let private = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let private = rustls::crypto::ring::sign::any_supported_type(&private).unwrap();
        let showing = |private| {
            let shown = Arc::new(Shown(Arc::new(CertifiedKey::new(vec![certificate.clone()], private))));
            let (mut client, mut server) = ours();
            client.client_auth_cert_resolver = shown.clone();
            server.cert_resolver = shown;
            (client, server)
        };
        let (client, server) = showing(private);
        assert_eq!(handshake(client, ours().1).unwrap().0, NamedGroup::X25519MLKEM768);
        assert_eq!(handshake(ours().0, server).unwrap().0, NamedGroup::X25519MLKEM768);
        // Whoever copies a certificate does not have its key.
        let other = PrivateKeyDer::from(generate(&Keypair::generate_ed25519()).unwrap().1);
        let (client, server) = showing(any_ecdsa_type(&other).unwrap());
        handshake(client, ours().1).unwrap_err();
        handshake(ours().0, server).unwrap_err();
    }
}

#[test]
fn ours_hold_on_a_host_whose_clock_begins_in_1970() {
    let host = Keypair::generate_ed25519();
    let (ours, _) = generate(&host).unwrap();
    for since_1970 in [0, 1, 59, 1 << 31, 1 << 35] {
        let now = rustls::pki_types::UnixTime::since_unix_epoch(std::time::Duration::from_secs(since_1970));
        let read = Certificate::read(&ours, now, algorithms().all);
        assert_eq!(read.unwrap().peer_id(), host.public().to_peer_id(), "{since_1970}");
    }
}
