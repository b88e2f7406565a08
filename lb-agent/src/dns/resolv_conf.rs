//! The resolvers that the host would use without us, from `/etc/resolv.conf`: as it is now, and whenever it changes.

use std::{
    error::Error,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
};

use tokio::{join, select, sync::watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{discover::file::watch_file::FileWatch, vip::Pools};

/// The host's resolvers, without the agent's own addresses, which would make it ask itself.
///
/// # Errors
/// If `/etc/resolv.conf` is there and cannot be read. Without the file there are none.
pub fn system_upstreams(pools: Pools) -> io::Result<Vec<SocketAddr>> {
    upstreams(pools, &text(fs::read(RESOLV_CONF))?, || {
        text(fs::read(RESOLVED_CONF))
    })
}

/// Sends the same to `out` whenever it is another one, until `stop`: an address by DHCP and a VPN come with resolvers of
/// their own. What cannot be read leaves those in force that there were.
pub async fn follow_system_upstreams(
    pools: Pools,
    out: watch::Sender<Vec<SocketAddr>>,
    stop: CancellationToken,
) {
    let files = [RESOLV_CONF, RESOLVED_CONF].map(Path::new);
    if let Err(error) = follow(files, pools, &out, &stop).await {
        warn!(
            error = &error as &dyn Error,
            "cannot watch {RESOLV_CONF}: the DNS upstreams stay as they are; raise fs.inotify.max_user_instances"
        );
        stop.cancelled().await;
    }
}

async fn follow(
    files: [&Path; 2],
    pools: Pools,
    out: &watch::Sender<Vec<SocketAddr>>,
    stop: &CancellationToken,
) -> notify::Result<()> {
    let mut resolv = FileWatch::new(files[0].to_owned())?;
    let mut resolved = FileWatch::new(files[1].to_owned())?;
    let (mut first, mut behind) = join!(resolv.next(Vec::new()), resolved.next(Vec::new()));
    let mut unread = false;
    loop {
        let read = first
            .as_ref()
            .map_err(copy)
            .map(decode)
            .and_then(|it| upstreams(pools, &it, || text(behind.as_ref().map_err(copy))));
        match read {
            Ok(servers) => {
                unread = false;
                tell(servers, out);
            }
            // Whoever replaces it may take it away first.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                if !unread {
                    warn!(%error, "cannot read {RESOLV_CONF}; the DNS upstreams stay as they are, set [dns] upstreams");
                }
                unread = true;
            }
        }
        select! {
            next = resolv.next(Vec::new()) => first = next,
            next = resolved.next(Vec::new()) => behind = next,
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn tell(servers: Vec<SocketAddr>, out: &watch::Sender<Vec<SocketAddr>>) {
    out.send_if_modified(|known| {
        let changed = *known != servers;
        if changed {
            info!(
                ?servers,
                "the host's DNS servers have changed, and are asked for other names"
            );
            *known = servers;
        }
        changed
    });
}

/// What is in a file; nothing if there is none.
fn text(read: io::Result<impl AsRef<[u8]>>) -> io::Result<String> {
    match read {
        Ok(bytes) => Ok(decode(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

fn decode(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8_lossy(bytes.as_ref()).into_owned()
}

fn copy(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), error.to_string())
}

/// `text` decides, unless it names systemd-resolved's stub only: that one may well ask us, and both would
/// go round in a circle. Then `resolved` knows the servers behind it.
pub(super) fn upstreams(
    pools: Pools,
    text: &str,
    resolved: impl FnOnce() -> io::Result<String>,
) -> io::Result<Vec<SocketAddr>> {
    let mut servers = name_servers(text);
    let stub = |server: &IpAddr| STUBS.iter().any(|stub| server == stub);
    let own = |server: &IpAddr| pools.vip(*server) == Some(pools.own());
    if !servers.is_empty() && servers.iter().all(|server| stub(server) || own(server)) {
        let behind = name_servers(&resolved()?);
        // If it knows nobody but us, there is nobody to ask.
        if !behind.is_empty() {
            servers = behind;
        }
    }
    servers.retain(|server| !own(server));
    Ok(servers
        .into_iter()
        .map(|server| SocketAddr::new(server, DNS_PORT))
        .collect())
}

/// The `nameserver` lines, each address once. What is no address is passed over, as libc does.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        if let Some(server) = words.next().and_then(|word| word.parse().ok())
            && !servers.contains(&server)
        {
            servers.push(server);
        }
    }
    servers
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved writes the servers that it asks itself.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";
const STUBS: [Ipv4Addr; 2] = [Ipv4Addr::new(127, 0, 0, 53), Ipv4Addr::new(127, 0, 0, 54)];
const DNS_PORT: u16 = 53;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[track_caller]
    fn check(text: &str, resolved: &str, expect: &[&str]) {
        let pools = Pools {
            v6: Some(crate::vip::Pool6::default()),
            ..Pools::default()
        };
        let servers = upstreams(pools, text, || Ok(resolved.to_owned())).unwrap();
        let expect: Vec<SocketAddr> = expect.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(servers, expect);
    }

    #[tokio::test]
    async fn the_servers_change_with_the_files_and_stay_while_there_are_none() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["resolv.conf", "resolved.conf"].map(|name| directory.path().join(name));
        let (out, mut servers) = watch::channel(vec!["192.0.2.9:53".parse().unwrap()]);
        let stop = CancellationToken::new();
        let (ended, watched) = (stop.clone(), files.clone());
        let follower = tokio::spawn(async move {
            let files = [watched[0].as_path(), watched[1].as_path()];
            follow(files, Pools::default(), &out, &ended).await.unwrap();
        });
        let mut until = async |expect: &str| {
            let expect = [expect.parse().unwrap()];
            let told = servers.wait_for(|servers| {
                assert!(!servers.is_empty());
                *servers == expect
            });
            timeout(LIMIT, told).await.unwrap().unwrap();
        };
        fs::write(&files[0], "nameserver 192.0.2.1").unwrap();
        until("192.0.2.1:53").await;
        fs::write(&files[1], "nameserver 192.0.2.2").unwrap();
        fs::write(&files[0], "nameserver 127.0.0.53").unwrap();
        until("192.0.2.2:53").await;
        fs::write(&files[1], "nameserver 192.0.2.3").unwrap();
        until("192.0.2.3:53").await;
        fs::remove_file(&files[0]).unwrap();
        fs::write(&files[0], "nameserver 192.0.2.4").unwrap();
        until("192.0.2.4:53").await;
        stop.cancel();
        follower.await.unwrap();
    }

    #[test]
    fn name_servers_are_taken_in_order_and_once() {
        let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 192.0.2.1\n\
                    nameserver\t2001:db8::1 # b\nnameserver 192.0.2.1\nnameserver nonsense\nnameserver";
        check(text, "", &["192.0.2.1:53", "[2001:db8::1]:53"]);
        check("", "nameserver 192.0.2.1", &[]);
    }

    #[test]
    fn the_agent_never_asks_itself() {
        check(
            "nameserver 198.18.0.1\nnameserver 192.0.2.1",
            "",
            &["192.0.2.1:53"],
        );
        check("nameserver 198.18.0.1", "", &[]);
        check("nameserver fd62:6c62:76:1::1", "", &[]);
    }

    #[test]
    fn the_stub_of_systemd_gives_way_to_the_servers_behind_it() {
        let behind = "nameserver 198.18.0.1\nnameserver 192.0.2.7";
        check("nameserver 127.0.0.53", behind, &["192.0.2.7:53"]);
        check("nameserver 127.0.0.53", "", &["127.0.0.53:53"]);
        check("nameserver 127.0.0.53", "nameserver 198.18.0.1", &[]);
        check("nameserver 198.18.0.1", behind, &["192.0.2.7:53"]);
    }
}
