//! Where an instance listens, of all the addresses that Consul knows of it and of its node.

use std::net::{IpAddr, SocketAddr};

use super::{Node, Service, TaggedAddress};
use crate::discover::server_address;

/// Where an instance listens.
pub(super) enum Place {
    At(SocketAddr),
    Named(String, u16),
}

/// Where the instance listens: the service's own address, else its node's. Where Consul knows several, the
/// IPv4 one, then the IPv6 one, and a host name last. Without a port, the tagged address that has one.
pub(super) fn place(node: &Node, service: &Service, foreign: bool) -> Result<Place, String> {
    let is_without = service.port.is_none_or(|port| port == 0);
    if let Some((ip, number)) = tagged_with_port(service, foreign).filter(|_| is_without) {
        return Ok(Place::At(SocketAddr::new(
            reachable(ip)?,
            port(Some(number))?,
        )));
    }
    let own = service
        .address
        .as_deref()
        .filter(|address| !address.is_empty());
    let text = own.or(node.address.as_deref()).unwrap_or_default();
    // The port belongs to the address that it is registered with.
    let plain = (text, service.port);
    let by_key = |key: &str| {
        let tagged = service.tagged_addresses.as_ref().and_then(|t| t.get(key));
        match tagged {
            Some(tagged) => Some((
                tagged.address.as_deref()?,
                tagged.port.filter(|port| *port != 0).or(service.port),
            )),
            None if own.is_some() => None,
            None => Some((
                node.tagged_addresses.as_ref()?.get(key)?.as_str(),
                service.port,
            )),
        }
    };
    let lan = |key| by_key(key).filter(|_| !foreign);
    let known = [Some(plain), lan("lan_ipv4"), lan("lan_ipv6")];
    let parsed: Vec<(IpAddr, Option<i64>)> = known
        .into_iter()
        .flatten()
        .filter_map(|(text, port)| Some((text.parse().ok()?, port)))
        .collect();
    let v4 = parsed.iter().find(|(ip, _)| ip.to_canonical().is_ipv4());
    let Some(&(ip, registered)) = v4.or(parsed.first()) else {
        if text.is_empty() {
            return Err("has no address and was left out; register it with one".to_owned());
        }
        if !is_host_name(text) {
            return Err(format!(
                "its address `{text}` is neither an IP address nor a host name and it was left out; \
                 correct the registration"
            ));
        }
        return Ok(Place::Named(text.to_owned(), port(service.port)?));
    };
    Ok(Place::At(SocketAddr::new(
        reachable(ip)?,
        port(registered)?,
    )))
}

/// The nearest tagged address with a port of its own; from another datacenter only those of the WAN are reached.
fn tagged_with_port(service: &Service, foreign: bool) -> Option<(IpAddr, i64)> {
    let tagged = service.tagged_addresses.as_ref()?;
    let keys = ["lan_ipv4", "lan", "lan_ipv6", "wan_ipv4", "wan", "wan_ipv6"];
    let keys = keys
        .into_iter()
        .filter(|key| !foreign || key.starts_with("wan"));
    keys.into_iter().find_map(|key| {
        let TaggedAddress { address, port } = tagged.get(key)?;
        let ip = address.as_ref()?.parse().ok()?;
        Some((ip, port.filter(|port| *port != 0)?))
    })
}

fn is_host_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    text.len() <= 253 && text.bytes().all(plain)
}

/// `ip`, if a server can have it.
pub(in crate::discover::consul) fn reachable(ip: IpAddr) -> Result<IpAddr, String> {
    server_address(ip).ok_or_else(|| {
        format!(
            "its address {ip} cannot be a server's and it was left out; register it with the address it \
             listens on"
        )
    })
}

fn port(registered: Option<i64>) -> Result<u16, String> {
    match registered.filter(|port| *port != 0).map(u16::try_from) {
        Some(Ok(port)) => Ok(port),
        Some(Err(_)) => Err(
            "its port is not between 1 and 65535 and it was left out; correct the registration"
                .to_owned(),
        ),
        None => Err("has no port and was left out; register it with one".to_owned()),
    }
}
