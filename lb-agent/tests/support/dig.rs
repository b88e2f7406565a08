//! `dig`, by which operators ask a resolver.

use std::{fs, net::IpAddr, path::PathBuf};

use lb_testkit::{Netns, Spawn};

/// The records that `server` has in its answer for `name`, each in its words. It must be one that `dig` takes, without
/// an error, and come from `server` over the protocol that was asked for.
#[track_caller]
pub(crate) fn dig(
    netns: &Netns,
    server: IpAddr,
    protocol: &str,
    name: &str,
    kind: &str,
) -> Vec<Vec<String>> {
    let packages = std::env::var_os("LB_DIG").map_or_else(
        || {
            panic!(
                "this test needs dig: run `cargo xtask test`, which fetches it, or set LB_DIG to the folder of its \
                 packages"
            )
        },
        PathBuf::from,
    );
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = fs::read_dir(&packages).unwrap();
    let libraries = folders.map(|it| it.unwrap().path().join("usr/lib").join(&triplet));
    let libraries = std::env::join_paths(libraries).unwrap();
    let over = match protocol {
        "TCP" => "+tcp",
        _ => "+notcp",
    };
    let said = Spawn::new("dig", packages.join("bind9-dnsutils/usr/bin/dig"))
        // Nobody's settings.
        .args(["-r", &format!("@{server}"), name, kind, over, "+tries=1"])
        .env("LD_LIBRARY_PATH", libraries)
        .netns(netns)
        .output()
        .unwrap();
    for line in [
        "status: NOERROR",
        &format!("SERVER: {server}#53({server}) ({protocol})"),
    ] {
        assert!(said.contains(line), "{line} is not in:\n{said}");
    }
    let (_, answer) = said.split_once(";; ANSWER SECTION:\n").unwrap_or_default();
    let records = answer.lines().take_while(|line| !line.is_empty());
    records
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}
