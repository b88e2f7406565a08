//! What `[registrar]` and the flags of `lb-agent register` say.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{Given, Origin, RawConfig, resolve::Judge};
use crate::{
    options::parse_duration,
    registrar::{
        Addressing, CONSULS_TAGS, Config, Deregister, HOST_REMEDY, Settings, Template,
        is_host_name, tag_list,
    },
};

/// The registrar's configuration, whether it is enabled or not.
pub(super) fn resolve(raw: &RawConfig, judge: &mut Judge<'_>) -> Config {
    let default = Config::default();
    let flag = |given: &Option<Given<bool>>| given.as_ref().is_some_and(|it| it.value);
    let ttl = raw.registrar_ttl.as_ref();
    let ttl = ttl.map(|_| judge.text(&raw.registrar_ttl, Duration::ZERO, span));
    let refresh = raw.registrar_ttl_refresh.as_ref();
    let refresh = refresh.map(|_| judge.text(&raw.registrar_ttl_refresh, Duration::ZERO, span));
    // As Registrator: both or neither, where neither of them is 0.
    let ttl = ttl.filter(|ttl| !ttl.is_zero());
    let ttl_refresh = refresh.filter(|refresh| !refresh.is_zero());
    if let (Some(given), Some(refresh)) = (&raw.registrar_ttl_refresh, ttl_refresh) {
        match ttl {
            None => judge.wrong(given, "there is no ttl that it could renew; give one"),
            Some(ttl) if refresh >= ttl => {
                judge.wrong(given, "it must be shorter than ttl; write half of that");
            }
            Some(_) => {}
        }
    }
    let listed = raw.registrar_attributes.as_ref();
    let attributes = listed.map(|given| {
        let keys = given.value.iter().map(|key| key.trim().to_lowercase());
        keys.collect()
    });
    Config {
        host: raw
            .registrar_host
            .as_ref()
            .map(|_| judge.text(&raw.registrar_host, String::new(), host)),
        settings: Settings {
            addressing: match flag(&raw.registrar_internal) {
                true => Addressing::Internal,
                false => Addressing::Published,
            },
            ip: raw
                .registrar_ip
                .as_ref()
                .and_then(|_| judge.text(&raw.registrar_ip, None, |text| ip(text).map(Some))),
            tagged: tagged_addresses(raw, judge),
            networks: judge.list(&raw.registrar_networks, Vec::new(), named),
            address_label: raw
                .registrar_address_label
                .as_ref()
                .map(|_| judge.text(&raw.registrar_address_label, String::new(), named)),
            tags: judge.list(&raw.registrar_tags, Vec::new(), tag),
            explicit: flag(&raw.registrar_explicit),
            attributes,
            ttl,
            ..default.settings
        },
        deregister: judge.text(&raw.registrar_deregister, default.deregister, deregister),
        drain: judge.text(&raw.registrar_drain, default.drain, span),
        // 0, which means never to Registrator, would leave what was missed for ever.
        resync: Some(judge.text(&raw.registrar_resync, default.resync, span))
            .filter(|resync| !resync.is_zero())
            .unwrap_or(default.resync),
        ttl_refresh,
        adopt: judge
            .list(&raw.registrar_adopt, Vec::new(), named)
            .into_iter()
            .collect(),
        deregister_on_exit: flag(&raw.registrar_deregister_on_exit),
    }
}

/// What the variables say that stand for the flags of `lb-agent register`; `run` has no such flags. Text that is no
/// truth value goes to `mistakes`.
pub(super) fn from_variables(
    variable: &dyn Fn(&str) -> Option<String>,
    mistakes: &mut Vec<String>,
) -> RawConfig {
    let text = |name: &'static str| {
        let value = variable(name).filter(|value| !value.is_empty())?;
        let origin = Origin::Variable(name);
        Some(Given { origin, value })
    };
    let list = |name| {
        let Given { origin, value } = text(name)?;
        let value = value.split(',').map(str::to_owned).collect();
        Some(Given { origin, value })
    };
    let mut switch = |name| {
        let Given { origin, value } = text(name)?;
        let read = value.parse();
        if read.is_err() {
            mistakes.push(format!("{origin}: `{value}`: write true or false"));
        }
        let value = read.ok()?;
        Some(Given { origin, value })
    };
    RawConfig {
        registrar_internal: switch("LB_REGISTRAR_INTERNAL"),
        registrar_explicit: switch("LB_REGISTRAR_EXPLICIT"),
        registrar_deregister_on_exit: switch("LB_REGISTRAR_DEREGISTER_ON_EXIT"),
        registrar_host: text("LB_REGISTRAR_HOST"),
        registrar_ip: text("LB_REGISTRAR_IP"),
        registrar_tagged_addresses: list("LB_REGISTRAR_TAGGED_ADDRESSES"),
        registrar_networks: list("LB_REGISTRAR_NETWORKS"),
        registrar_tags: text("LB_REGISTRAR_TAGS").map(|Given { origin, value }| {
            let value = tag_list(&value);
            Given { origin, value }
        }),
        registrar_attributes: list("LB_REGISTRAR_ATTRIBUTES"),
        registrar_deregister: text("LB_REGISTRAR_DEREGISTER"),
        registrar_drain: text("LB_REGISTRAR_DRAIN"),
        registrar_resync: text("LB_REGISTRAR_RESYNC"),
        registrar_ttl: text("LB_REGISTRAR_TTL"),
        registrar_ttl_refresh: text("LB_REGISTRAR_TTL_REFRESH"),
        registrar_adopt: list("LB_REGISTRAR_ADOPT"),
        ..RawConfig::default()
    }
}

/// A part of ids, and a value of Meta.
fn host(text: &str) -> Result<String, String> {
    match is_host_name(text) {
        true => Ok(text.to_owned()),
        false => Err(HOST_REMEDY.to_owned()),
    }
}

fn tagged_addresses(raw: &RawConfig, judge: &mut Judge<'_>) -> BTreeMap<String, IpAddr> {
    let given = &raw.registrar_tagged_addresses;
    let mut addresses = BTreeMap::new();
    for (tag, address) in judge.list(given, Vec::new(), tagged_address) {
        if let (Some(given), Some(_)) = (given, addresses.insert(tag.clone(), address)) {
            let remedy = format!("`{tag}` is there twice; Consul has one address for a tag");
            judge.wrong(given, &remedy);
        }
    }
    addresses
}

fn tagged_address(text: &str) -> Result<(String, IpAddr), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    let parts = text
        .split_once('=')
        .filter(|(tag, _)| (1..=64).contains(&tag.len()) && tag.bytes().all(plain));
    let (tag, address) =
        parts.ok_or("write a tag of letters, digits, `-` and `_`, then `=` and an address, such as wan=192.0.2.1")?;
    // The VIP of a service, and what Consul makes of its address by itself.
    if tag == "virtual" || CONSULS_TAGS.contains(&tag) {
        return Err("this tag has a meaning of its own; write another one, such as wan".to_owned());
    }
    Ok((tag.to_owned(), ip(address)?))
}

fn ip(text: &str) -> Result<IpAddr, String> {
    let ip = text.parse().ok().filter(|ip: &IpAddr| !ip.is_unspecified());
    ip.ok_or_else(|| "write the IP address of this host, such as 192.0.2.1".to_owned())
}

fn named(text: &str) -> Result<String, String> {
    match text {
        "" => Err("it is empty; write a name or leave it out".to_owned()),
        name => Ok(name.to_owned()),
    }
}

fn tag(text: &str) -> Result<Template, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn deregister(text: &str) -> Result<Deregister, String> {
    match text {
        "always" => Ok(Deregister::Always),
        "on-success" => Ok(Deregister::OnSuccess),
        _ => Err("write always or on-success".to_owned()),
    }
}

pub(super) fn span(text: &str) -> Result<Duration, String> {
    parse_duration(text)
        .filter(|span| *span <= Duration::from_secs(86_400))
        .ok_or_else(|| "write a time such as 30s, at most a day".to_owned())
}
