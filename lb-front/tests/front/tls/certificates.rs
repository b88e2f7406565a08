//! Which certificate a client is shown.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use lb_front::{
    Limits,
    tls::{Certificate, Tls},
};
use rcgen::{CertificateParams, CustomExtension, KeyPair, PKCS_ED25519};
use rustls::{ClientConfig, HandshakeKind, RootCertStore, crypto::ring};

use super::{connect, eventually_rejected, front, rejected, tls};
use crate::{
    kit::{Backend, GET, TestFront, eventually},
    tlskit::{anybody, authority, certificate, certificate_with, config, leaf, shown, try_connect},
};

#[test]
fn the_name_that_a_client_asks_for_decides_which_certificate_it_gets() {
    let backend = Backend::named("a");
    let front = TestFront::with_tls(Limits::default(), &[&backend]);
    let first = certificate(&["first.example"]);
    let wild = certificate(&["*.apps.example"]);
    let exact = certificate(&["www.apps.example", "other.example"]);
    front.front.present(&tls(&[&first, &wild, &exact])).unwrap();
    // A stranger's certificate is what the test asks for, too.
    let config = Arc::new(anybody());
    for (name, expected) in [
        ("first.example", &first),
        ("any.apps.example", &wild),
        ("WWW.apps.example", &exact),
        ("other.example", &exact),
        // One label, and no fewer.
        ("a.b.apps.example", &first),
        ("apps.example", &first),
        ("stranger.example", &first),
        // An address is not asked for.
        ("127.0.0.1", &first),
    ] {
        let client = try_connect(front.tls(), &config, name).unwrap();
        assert_eq!(shown(&client), leaf(expected), "{name}");
    }
    // Which certificate it was does not decide who answers.
    let mut client = try_connect(front.tls(), &config, "stranger.example").unwrap();
    assert_eq!(client.send(GET).answer().body, "a");
}

#[test]
fn of_two_certificates_for_a_name_the_client_gets_one_that_it_can_read() {
    let front = TestFront::with_tls(Limits::default(), &[&Backend::named("a")]);
    let modern = certificate_with(&["web"], &PKCS_ED25519);
    let usual = certificate(&["web"]);
    front.front.present(&tls(&[&modern, &usual])).unwrap();
    let mut provider = ring::default_provider();
    let client = try_connect(front.tls(), &config(), "web").unwrap();
    assert_eq!(shown(&client), leaf(&modern));
    // This one knows nothing of Ed25519.
    static ONLY: OnceLock<rustls::crypto::WebPkiSupportedAlgorithms> = OnceLock::new();
    let known = provider.signature_verification_algorithms;
    let only = ONLY.get_or_init(|| {
        let ecdsa = |it: &&(rustls::SignatureScheme, _)| {
            it.0 == rustls::SignatureScheme::ECDSA_NISTP256_SHA256
        };
        let mapping: Vec<_> = known.mapping.iter().filter(ecdsa).copied().collect();
        rustls::crypto::WebPkiSupportedAlgorithms {
            all: known.all,
            mapping: Vec::leak(mapping),
        }
    });
    provider.signature_verification_algorithms = *only;
    let mut roots = RootCertStore::empty();
    roots.add(authority().certificate.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = try_connect(front.tls(), &Arc::new(config), "web").unwrap();
    assert_eq!(shown(&client), leaf(&usual));
}

#[test]
fn without_a_certificate_nobody_is_served() {
    let backend = Backend::named("a");
    let front = TestFront::with_tls(Limits::default(), &[&backend]);
    assert!(try_connect(front.tls(), &config(), "web").is_err());
    eventually_rejected(&front, "tls_no_certificate");
    front.front.present(&Tls::default()).unwrap();
    assert!(try_connect(front.tls(), &config(), "web").is_err());
    eventually("both are counted", || {
        (rejected(&front, "tls_no_certificate") == 2).then_some(())
    });
    assert_eq!(front.ask(GET).body, "a");
}

#[test]
fn an_authority_is_shown_the_proof_for_the_name_it_asks_for_and_nobody_else_is() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let mut params = CertificateParams::new(["shop.example".to_owned()]).unwrap();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(&[7; 32])];
    let key = KeyPair::generate().unwrap();
    let proof = Certificate {
        chain: params.self_signed(&key).unwrap().pem(),
        key: key.serialize_pem(),
    };
    let usual = certificate(&["web"]);
    let mut shown_from_now_on = tls(&[&usual]);
    shown_from_now_on.proofs = vec![("Shop.example".into(), proof.clone())];
    front.front.present(&shown_from_now_on).unwrap();
    let mut looking = anybody();
    looking.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    let looking = Arc::new(looking);
    let client = try_connect(front.tls(), &looking, "shop.example").unwrap();
    assert_eq!(shown(&client), leaf(&proof));
    assert_eq!(client.stream.conn.alpn_protocol(), Some(&b"acme-tls/1"[..]));
    assert!(try_connect(front.tls(), &looking, "web").is_err());
    let anybody = Arc::new(anybody());
    let client = try_connect(front.tls(), &anybody, "shop.example").unwrap();
    assert_eq!(shown(&client), leaf(&usual));
}

#[test]
fn a_certificate_that_cannot_be_used_leaves_those_before() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let mut broken = certificate(&["web"]);
    broken.key = certificate(&["web"]).key;
    front.front.present(&tls(&[&broken])).unwrap_err();
    assert_eq!(connect(&front).send(GET).answer().status, 200);
}

#[test]
fn nothing_takes_the_place_of_a_certificate_that_is_shown() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    front.front.present(&Tls::default()).unwrap();
    assert_eq!(connect(&front).send(GET).answer().status, 200);
}

#[test]
fn a_client_that_comes_again_need_not_be_shown_everything_again() {
    let front = front(Limits::default(), &[&Backend::named("a")]);
    let config = config();
    let kinds = || {
        let mut client = try_connect(front.tls(), &config, "web").unwrap();
        // The tickets come with the answer.
        assert_eq!(client.send(GET).answer().status, 200);
        client.stream.conn.handshake_kind().unwrap()
    };
    assert_eq!(kinds(), HandshakeKind::Full);
    assert_eq!(kinds(), HandshakeKind::Resumed);
    front
        .front
        .present(&tls(&[&certificate(&["web"])]))
        .unwrap();
    assert_eq!(kinds(), HandshakeKind::Resumed);
}

#[test]
fn certificates_change_under_load_without_a_failed_request() {
    let backend = Backend::named("a");
    let front = front(Limits::default(), &[&backend]);
    let (one, other) = (certificate(&["web"]), certificate(&["web"]));
    let (done, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut kept = connect(&front);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    let mut client = connect(&front);
                    for _ in 0..3 {
                        assert_eq!(client.send(GET).answer().status, 200);
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for change in 0..40 {
            let next = if change % 2 == 0 { &one } else { &other };
            front.front.present(&tls(&[next])).unwrap();
            assert_eq!(shown(&connect(&front)), leaf(next));
            assert_eq!(kept.send(GET).answer().status, 200);
            let so_far = served.load(Ordering::Relaxed);
            eventually("requests go on", || {
                (served.load(Ordering::Relaxed) > so_far).then_some(())
            });
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(front.stats().rejected.len(), 0);
}
