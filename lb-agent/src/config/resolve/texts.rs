//! What a text means, or what to write instead.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::{
    config::{Expose, LogFormat, Published},
    options::{is_dns_name, parse_duration},
    vip::{Pool, Pool6},
};

pub(in crate::config) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "auto" => Ok(LogFormat::Auto),
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        "journald" => Ok(LogFormat::Journald),
        _ => Err("write auto, text, json or journald".to_owned()),
    }
}

pub(super) fn published(text: &str) -> Result<Published, String> {
    match text {
        "token" => Ok(Published::Token),
        "open" => Ok(Published::Open),
        _ => Err("write token or open".to_owned()),
    }
}

pub(super) fn expose(text: &str) -> Result<Expose, String> {
    match text {
        "all" => Ok(Expose::All),
        "tagged" => Ok(Expose::Tagged),
        _ => Err("write all or tagged".to_owned()),
    }
}

pub(super) fn pool(text: &str) -> Result<Pool, String> {
    let pool: Ipv4Net = text
        .parse()
        .map_err(|_| "write an IPv4 network, such as 198.18.0.0/16".to_owned())?;
    if pool.addr() != pool.network() {
        return Err(format!("its host part is not zero; write {}", pool.trunc()));
    }
    if !Pool::PREFIXES.contains(&pool.prefix_len()) {
        let (widest, narrowest) = (Pool::PREFIXES.start(), Pool::PREFIXES.end());
        return Err(format!("write a network from /{widest} to /{narrowest}"));
    }
    let first = pool.network();
    if first.is_loopback()
        || first.is_multicast()
        || first.octets()[0] == 0
        || first.octets()[0] >= 240
    {
        return Err(
            "these addresses have another meaning; write 198.18.0.0/16 or a private network"
                .to_owned(),
        );
    }
    Pool::try_from(pool).map_err(|error| error.to_string())
}

pub(super) fn pool6(text: &str) -> Result<Pool6, String> {
    let net: Ipv6Net = text
        .parse()
        .map_err(|_| "write an IPv6 network, such as fd62:6c62:76:1::/64".to_owned())?;
    Pool6::try_from(net).map_err(|error| error.to_string())
}

/// Whose clients the resolver answers.
pub(super) fn clients(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| "write a network, such as 192.0.2.0/24".to_owned())?;
    match net.prefix_len() {
        0 => Err("a resolver that is open to everybody is a weapon; write the networks of your own clients".to_owned()),
        _ => Ok(net.trunc()),
    }
}

/// Who is believed about clients.
pub(super) fn proxies(text: &str) -> Result<IpNet, String> {
    let one = |text: &str| {
        text.parse()
            .ok()
            .map(|address: IpAddr| IpNet::from(address))
    };
    let net = text.parse().ok().or_else(|| one(text));
    let net = net.ok_or_else(|| "write a network or an address, such as 10.0.0.0/24".to_owned())?;
    match net.prefix_len() {
        0 => Err(
            "everybody could claim to be anybody; write the networks of your own proxies"
                .to_owned(),
        ),
        _ => Ok(net.trunc()),
    }
}

/// A name of one label, such as a datacenter's.
pub(in crate::config) fn label(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if (1..=63).contains(&text.len()) && text.bytes().all(plain) {
        Ok(text.to_owned())
    } else {
        Err("write a name of letters, digits, `-` and `_`".to_owned())
    }
}

pub(super) fn domain(text: &str) -> Result<String, String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    if is_dns_name(&name) {
        Ok(name)
    } else {
        Err("write a domain without a port, such as apps.example.org".to_owned())
    }
}

pub(in crate::config) fn listener(text: &str) -> Result<SocketAddr, String> {
    // `:80` means every IPv4 address of this host; all of IPv6 are `[::]:80`.
    let full = match text.strip_prefix(':') {
        Some(port) => format!("0.0.0.0:{port}"),
        None => text.to_owned(),
    };
    full.parse()
        .map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080".to_owned())
}

pub(super) fn name_server(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse().map(|ip| SocketAddr::new(ip, 53));
    alone
        .or_else(|_| text.parse())
        .map_err(|_| "write an IP address with or without a port, such as 127.0.0.1:53".to_owned())
}

pub(in crate::config) fn pause(text: &str) -> Result<Duration, String> {
    let bounds = Duration::from_millis(100)..=Duration::from_secs(3600);
    parse_duration(text)
        .filter(|pause| bounds.contains(pause))
        .ok_or_else(|| "write a time from 100ms to 1h, such as 2s".to_owned())
}

pub(super) fn quarantine(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(7 * 24 * 60 * 60);
    parse_duration(text)
        .filter(|quarantine| *quarantine <= longest)
        .ok_or_else(|| "write a time up to a week (168h), such as 10m; 0 for none".to_owned())
}

pub(super) fn leave(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|time| *time <= Duration::from_secs(3600))
        .ok_or_else(|| "write a time up to 1h, such as 30s; 0 for none".to_owned())
}

pub(super) fn retirement(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|time| *time <= Duration::from_secs(7 * 24 * 60 * 60))
        .ok_or_else(|| "write a time up to a week (168h), such as 10m; 0 for none".to_owned())
}
