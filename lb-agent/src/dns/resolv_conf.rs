//! The resolvers that the host would use without us, from `/etc/resolv.conf`.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use crate::vip::Pools;

/// The host's resolvers, without the agent's own addresses, which would make it ask itself.
///
/// # Errors
/// If `/etc/resolv.conf` is there and cannot be read. Without the file there are none.
pub fn system_upstreams(pools: Pools) -> io::Result<Vec<SocketAddr>> {
    upstreams(pools, &read(RESOLV_CONF)?, || read(RESOLVED_CONF))
}

fn read(path: &str) -> io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        read => read,
    }
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
    use super::*;

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
