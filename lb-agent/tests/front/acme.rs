//! A real authority for tests (`LB_PEBBLE` names the folder of its programs) issues certificates to the front, and renews them.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use base64::Engine as _;
use lb_agent::front::{Acme, AcmeChannels, CertificateOutputs, Files, acme, certificates};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    agent::{Agent, Leftover, reserved},
    kit::{Backend, GET, eventually},
    snapshots::snapshot,
    tlskit::{anybody, authority, certificate, leaf, shown, try_connect},
};

/// A process that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

struct Authority {
    directory: String,
    ca_file: PathBuf,
    _programs: [Program; 2],
}

/// Its certificates are good for `seconds`, and it looks for proofs at `tls`.
fn start(folder: &Path, tls: SocketAddr, seconds: u32) -> Authority {
    let programs = std::env::var_os("LB_PEBBLE").expect("LB_PEBBLE: the folder of pebble");
    let program = |name: &str| {
        let mut command = Command::new(Path::new(&programs).join(name));
        command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .current_dir(folder);
        command
    };
    let (dns, management) = (free(), free());
    let (listen, own_management) = (free(), free());
    let own = certificate(&["127.0.0.1"]);
    fs::write(folder.join("own.pem"), &own.chain).unwrap();
    fs::write(folder.join("own.key"), &own.key).unwrap();
    let ca_file = folder.join("ca.pem");
    let bytes = base64::prelude::BASE64_STANDARD.encode(&authority().certificate);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{bytes}\n-----END CERTIFICATE-----\n");
    fs::write(&ca_file, pem).unwrap();
    let config = format!(
        r#"{{"pebble":{{"listenAddress":"{listen}","managementListenAddress":"{own_management}",
        "certificate":"own.pem","privateKey":"own.key","httpPort":1,"tlsPort":{},
        "ocspResponderURL":"","externalAccountBindingRequired":false,
        "certificateValidityPeriod":{seconds}}}}}"#,
        tls.port(),
    );
    fs::write(folder.join("pebble.json"), config).unwrap();
    // Every name is this host.
    let names = program("pebble-challtestsrv")
        .args([
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
        ])
        .args([
            "-dns01",
            &dns.to_string(),
            "-management",
            &management.to_string(),
        ])
        .spawn()
        .unwrap();
    let server = program("pebble")
        .args(["-config", "pebble.json", "-dnsserver", &dns.to_string()])
        .env("PEBBLE_VA_NOSLEEP", "1")
        .spawn()
        .unwrap();
    let programs = [Program(names), Program(server)];
    for address in [management, listen] {
        eventually("the authority and its names listen", || {
            std::net::TcpStream::connect(address).ok()
        });
    }
    Authority {
        directory: format!("https://{listen}/dir"),
        ca_file,
        _programs: programs,
    }
}

#[test]
fn an_authority_issues_a_certificate_and_renews_it_and_nobody_is_cut() {
    let ((_plain, plain), (_tls, tls)) = (reserved(), reserved());
    let (folder, backend) = (tempfile::tempdir().unwrap(), Backend::named("a"));
    let authority = start(folder.path(), tls, 30);
    let outputs = CertificateOutputs::default();
    let channels = AcmeChannels::default();
    let config = Acme {
        directory: authority.directory.clone(),
        ca_file: Some(authority.ca_file.clone()),
        contact: vec!["mailto:admin@shop.example".into()],
        names: vec!["shop.example".into()],
        folder: folder.path().join("acme"),
    };
    // The first one cannot be written down.
    let in_the_way = config.folder.join("shop.example.new");
    fs::create_dir_all(&in_the_way).unwrap();
    let mut agent = Agent::config(folder.path(), vec![plain]);
    agent.listen_tls = vec![tls];
    agent.certificates = Some(outputs.tls.subscribe());
    agent.shown = channels.shown.clone();
    let agent = Agent::run(agent, vec![]);
    agent.publish(snapshot(&[backend.address]));
    let _leftover = Leftover(agent.pid());
    let (issued, stop) = (channels.issued.subscribe(), CancellationToken::new());
    let problems = channels.problems.subscribe();
    let (_reload, reload) = watch::channel(());
    let shelf = certificates(
        Files::default(),
        outputs,
        issued.clone(),
        reload,
        stop.clone(),
    );
    agent.runtime.spawn(shelf);
    agent
        .runtime
        .spawn(acme(config.clone(), channels, stop.clone()));
    let client = || try_connect(tls, &Arc::new(anybody()), "shop.example");
    let patience = Instant::now() + Duration::from_secs(100);
    let mut seen = Vec::new();
    let mut kept = None;
    while seen.len() < 2 {
        assert!(Instant::now() < patience, "{:?}", *problems.borrow());
        // Until there is one, nobody is served.
        if let Ok(mut client) = client() {
            let certificate = shown(&client);
            if seen.last() != Some(&certificate) {
                let newest = issued.borrow().certificates.last().map(leaf);
                assert_eq!(newest.as_ref(), Some(&certificate));
                seen.push(certificate);
                if seen.len() == 1 {
                    eventually("that it cannot be kept is told", || {
                        let told = problems.borrow();
                        let told = told.first()?;
                        told.message.contains("could not be kept").then_some(())
                    });
                    fs::remove_dir(&in_the_way).unwrap();
                }
            }
            assert_eq!(client.send(GET).answer().body, "a");
            kept.get_or_insert(client);
        }
        thread::sleep(Duration::from_millis(20));
    }
    // The connection of the first certificate is still there.
    assert_eq!(kept.unwrap().send(GET).answer().body, "a");
    assert_eq!(*problems.borrow(), []);
    stop.cancel();
    drop(authority);
    // The next agent has it from the disk.
    let channels = AcmeChannels::default();
    let again = channels.issued.subscribe();
    agent
        .runtime
        .spawn(acme(config, channels, CancellationToken::new()));
    eventually("it is there at once", || {
        let last = again.borrow().certificates.last().map(leaf)?;
        (Some(&last) == seen.last()).then_some(())
    });
    let mode = |name: &str| {
        let data = fs::metadata(folder.path().join("acme").join(name)).unwrap();
        std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 0o777
    };
    assert_eq!(
        (mode(""), mode("shop.example.pem"), mode("account.json")),
        (0o700, 0o600, 0o600)
    );
    agent.stop();
}
