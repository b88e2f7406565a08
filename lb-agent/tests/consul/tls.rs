//! Consul over TLS: who trusts whom.

mod authority;
mod connections;

use std::net::TcpListener;

use lb_agent::{
    catalog::Problem,
    discover::consul::{Address, Config, Tls},
};
use rustls::server::Acceptor;
use tokio::sync::watch;

use self::authority::{Authority, NAME};
use crate::{
    kit::{SOON, Source, config, ids},
    support::{BOUND, Consul},
};

/// What a source says that cannot reach its Consul.
async fn refused(config: Config) -> String {
    let mut source = Source::start(config);
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.catalog.is_none(), "unknown is never empty");
    source.end().await;
    state.error.unwrap()
}

#[tokio::test]
async fn who_is_not_trusted_is_named_with_the_remedy() {
    let (authority, other) = (Authority::new(), Authority::new());
    let consul = authority.consul().await;
    let right = authority.config(&consul);
    let with = |tls: Tls| Config {
        tls,
        ..right.clone()
    };
    let anonymous = refused(with(Tls {
        cert_file: None,
        key_file: None,
        ..right.tls.clone()
    }));
    let stranger = refused(with(Tls {
        ca_file: Some(other.file("ca.pem")),
        ..right.tls.clone()
    }));
    // The certificate holds a name, and the address is none.
    let misnamed = refused(with(Tls {
        server_name: None,
        ..right.tls.clone()
    }));
    for (text, part) in [
        (anonymous.await, "cert_file and key_file"),
        (stranger.await, "invalid peer certificate"),
        (misnamed.await, "not valid for name"),
    ] {
        assert!(
            text.starts_with("cannot reach Consul at https://127.0.0.1:"),
            "{text}"
        );
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn an_authority_may_be_one_file_of_a_folder_and_nobody_at_all_only_with_a_warning() {
    let authority = Authority::new();
    let consul = authority.consul().await;
    let right = authority.config(&consul);
    let folder = Config {
        tls: Tls {
            ca_file: None,
            ca_path: Some(authority.folder.path().to_owned()),
            ..right.tls.clone()
        },
        ..right.clone()
    };
    let problems = folder.problems.subscribe();
    let mut source = Source::start(folder);
    source.catalog(BOUND, |_| true).await;
    source.end().await;
    assert_eq!(*problems.borrow(), []);

    let blind = Config {
        tls: Tls {
            ca_file: None,
            server_name: None,
            trust_anybody: true,
            ..right.tls.clone()
        },
        problems: watch::Sender::default(),
        ..right
    };
    let problems = blind.problems.subscribe();
    let mut source = Source::start(blind);
    source.catalog(BOUND, |_| true).await;
    let text = problems.borrow()[0].to_string();
    assert!(text.contains("remove tls_verify = false"), "{text}");
    source.end().await;
}

#[tokio::test]
async fn certificates_are_read_again_when_told_and_broken_ones_change_nothing() {
    let (authority, other) = (Authority::new(), Authority::new());
    let consul = authority.consul().await;
    let reload = watch::Sender::default();
    let config = Config {
        reload: reload.subscribe(),
        ..authority.config(&consul)
    };
    let mut problems = config.problems.subscribe();
    // At first, ours is signed by somebody whom Consul does not know.
    other.sign("client");
    for file in ["client.pem", "client.key"] {
        std::fs::copy(other.file(file), authority.file(file)).unwrap();
    }
    let mut source = Source::start(config);
    let state = source.until(BOUND, |state| state.error.is_some()).await;
    assert!(state.catalog.is_none(), "unknown is never empty");
    authority.sign("client");
    reload.send_replace(());
    source
        .catalog(BOUND, |catalog| !catalog.services.is_empty())
        .await;
    source.until(BOUND, |state| state.error.is_none()).await;

    std::fs::write(authority.file("client.key"), "rotten").unwrap();
    reload.send_replace(());
    let told = |problems: &Vec<Problem>| !problems.is_empty();
    let told = tokio::time::timeout(BOUND, problems.wait_for(told)).await;
    let text = told.unwrap().unwrap()[0].to_string();
    assert!(text.contains("client.key holds no private key"), "{text}");
    assert!(text.ends_with("the old certificates stay in use"), "{text}");
    // The old ones still serve.
    consul.register("a", "a1", 1).await;
    source
        .catalog(SOON, |catalog| ids(catalog, "a") == ["a1"])
        .await;

    authority.sign("client");
    reload.send_replace(());
    tokio::time::timeout(BOUND, problems.wait_for(Vec::is_empty))
        .await
        .unwrap()
        .unwrap();
    source.end().await;
}

#[tokio::test]
async fn a_port_that_speaks_no_tls_is_named() {
    let consul = Consul::start().await;
    let plain = format!("https://{}", consul.address());
    let authority = Authority::new();
    let tls = Tls {
        ca_file: Some(authority.file("ca.pem")),
        ..Tls::default()
    };
    let text = refused(Config {
        tls,
        ..config(&plain)
    })
    .await;
    assert!(
        text.starts_with(&format!("cannot reach Consul at {plain}: ")),
        "{text}"
    );
}

#[test]
fn files_that_cannot_be_used_are_told_at_the_start() {
    let authority = Authority::new();
    authority.sign("client");
    let check = |tls: Tls| {
        let address: Address = "https://127.0.0.1:8501".parse().unwrap();
        let mut config = Config::new(address);
        config.tls = tls;
        config.check().map_err(|error| error.to_string())
    };
    let ca_file = Some(authority.file("ca.pem"));
    assert_eq!(
        check(Tls {
            ca_file: ca_file.clone(),
            ..Tls::default()
        }),
        Ok(())
    );
    for (tls, part) in [
        (
            Tls {
                ca_file: Some(authority.file("missing.pem")),
                ..Tls::default()
            },
            "missing.pem cannot be read",
        ),
        (
            Tls {
                ca_file: Some(authority.file("client.key")),
                ..Tls::default()
            },
            "client.key holds no certificate",
        ),
        (
            Tls {
                ca_path: Some(tempfile::tempdir().unwrap().path().to_owned()),
                ..Tls::default()
            },
            "no file in it ends in .pem",
        ),
        (
            Tls {
                ca_file: ca_file.clone(),
                cert_file: Some(authority.file("client.pem")),
                ..Tls::default()
            },
            "need each other",
        ),
        (
            Tls {
                ca_file,
                server_name: Some("a b".to_owned()),
                ..Tls::default()
            },
            "no name that a certificate can hold",
        ),
    ] {
        let text = check(tls).unwrap_err();
        assert!(text.contains(part), "{text}");
    }
}

/// Which name the first greeting of TLS asks for, of a client with `name` that reaches the listener at `host`.
fn asked_for(host: &str, name: Option<&str>) -> Option<String> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Config {
        tls: Tls {
            server_name: name.map(str::to_owned),
            trust_anybody: true,
            ..Tls::default()
        },
        ..config(&format!("https://{host}:{port}"))
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let source = runtime.block_on(async { Source::start(config) });
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(BOUND)).unwrap();
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        assert_ne!(acceptor.read_tls(&mut stream).unwrap(), 0);
        if let Some(accepted) = acceptor.accept().map_err(|(error, _)| error).unwrap() {
            break accepted;
        }
    };
    let asked = accepted.client_hello().server_name().map(str::to_owned);
    drop(stream);
    runtime.block_on(source.end());
    asked
}

#[test]
fn the_name_that_the_certificate_must_hold_is_asked_for() {
    for (host, name, asked) in [
        ("127.0.0.1", Some(NAME), Some(NAME)),
        ("localhost", Some(NAME), Some(NAME)),
        ("localhost", None, Some("localhost")),
        ("127.0.0.1", None, None),
        // There is no asking for an IP address, and `localhost` would be another.
        ("localhost", Some("192.0.2.1"), None),
    ] {
        assert_eq!(asked_for(host, name).as_deref(), asked, "{host} {name:?}");
    }
}
