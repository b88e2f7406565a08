//! Routers that learn by BGP where VIPs are: the program and the daemon's configuration of docs/announce.md, as they stand there.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use lb_testkit::{Netns, Process, Spawn, eventually, markdown};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::kit::{Host, LIMIT, Segment, twin};

const TEXT: &str = include_str!("../../../docs/announce.md");

/// What the document has as the program `name`, with the addresses of this segment.
fn written(name: &str) -> String {
    let blocks = markdown::blocks(TEXT);
    let block = blocks.iter().find(|it| it.said("program") == Some(name));
    let text = &block.unwrap().text;
    text.replace("192.0.2.7", "10.77.0.11")
        .replace("192.0.2.1", "10.77.0.8")
}

/// The other side.
const ROUTER: &str = "
router id 10.77.0.8;
protocol device {}
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; }
protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; }
protocol bgp host {
    local 10.77.0.8 as 64513;
    neighbor 10.77.0.11 as 64512;
    connect retry time 1;
    error wait time 1, 2;
    ipv4 { import all; export none; };
    ipv6 { import all; export none; };
}
";

fn bird(netns: &Netns, name: &str, folder: &Path, text: &str) -> Process {
    let packages = std::env::var_os("LB_BIRD").map(PathBuf::from).expect(
        "this test needs BIRD: run `cargo xtask test`, which fetches it, or set LB_BIRD to the folder of its packages",
    );
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let libraries = packages.join("libssh-gcrypt-4/usr/lib").join(triplet);
    let at = |kind: &str| folder.join(format!("{name}.{kind}"));
    fs::write(at("conf"), text).unwrap();
    let program = packages.join("bird2/usr/sbin/bird");
    let bird = Spawn::new(name, program)
        .arg("-f")
        .arg("-c")
        .arg(at("conf"));
    let bird = bird.arg("-s").arg(at("socket")).arg("-P").arg(at("pid"));
    let bird = bird.env("LD_LIBRARY_PATH", libraries).netns(netns);
    bird.log(folder).start().unwrap()
}

#[test]
fn a_router_learns_the_vips_of_the_host_that_answers_and_forgets_them() {
    let segment = Segment::new();
    let (router, folder) = (segment.router(), TempDir::with_prefix("lb-bird-").unwrap());
    let hook = folder.path().join("announce");
    fs::write(&hook, written("announce")).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let mut host = Host::new(&segment, 1);
    host.configure(&format!(
        "[announce]\nowner = \"always\"\nhook = \"{}\"\n",
        hook.display()
    ));
    let _theirs = bird(&router, "router", folder.path(), ROUTER);
    let _ours = bird(&host.netns, "host", folder.path(), &written("bird.conf"));
    host.start();
    let vip = host.vip("www");
    let routes = || {
        let ask = |family: &str, address: String| {
            let asked = router.enter(|| {
                let mut ip = Command::new("ip");
                ip.args([family, "route", "show", &address])
                    .output()
                    .unwrap()
            });
            let asked = asked.unwrap();
            assert!(asked.status.success(), "{asked:?}");
            String::from_utf8(asked.stdout).unwrap()
        };
        let v6 = ask("-6", format!("{}/128", twin(vip)));
        (ask("-4", format!("{vip}/32")), v6)
    };
    let await_routes = |known: bool, host: &Host| {
        let told = eventually(LIMIT, || {
            let (v4, v6) = routes();
            let is_so = match known {
                true => v4.contains("via 10.77.0.11") && v6.contains("via fd77::11"),
                false => v4.is_empty() && v6.is_empty(),
            };
            is_so.then_some(()).ok_or(format!("{v4}; {v6}"))
        });
        let log = |name: &str| {
            let log = folder.path().join(format!("{name}.log"));
            fs::read_to_string(log).unwrap_or_default()
        };
        told.unwrap_or_else(|late| {
            panic!(
                "{late}\n{}\n{}\n{}",
                log("router"),
                log("host"),
                host.said()
            )
        });
    };
    await_routes(true, &host);
    host.await_line("ok", |it| it == "this host answers for 2 addresses");
    assert!(host.metric("lb_announce_hooks_total{result=\"ok\"}") >= Some(1.0));
    // One that hands over to the next releases nothing.
    host.signal(Signal::SIGUSR2);
    host.await_end();
    let said = host.said();
    assert!(
        !said.contains("verb=\"release\"") && !said.contains("lost: "),
        "{said}"
    );
    await_routes(true, &host);
    host.start();
    host.await_line("ok", |it| it == "this host answers for 2 addresses");
    await_routes(true, &host);
    host.terminate();
    await_routes(false, &host);

    // A killed agent releases nothing; what its unit runs then does.
    host.start();
    await_routes(true, &host);
    host.kill();
    let ended = Spawn::new("hook", &hook).arg("release").netns(&host.netns);
    ended.output().unwrap();
    await_routes(false, &host);
}
