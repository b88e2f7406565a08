//! `[announce]`: where VIPs are announced, and by whom.

use std::{path::PathBuf, time::Duration};

use super::{RawConfig, resolve::Judge};
use crate::{
    announce::{Config, Owner},
    options::parse_duration,
};

/// What `raw` says. `has_consul` is whether there is one to elect an owner through.
pub(super) fn resolve(raw: &RawConfig, has_consul: bool, judge: &mut Judge<'_>) -> Config {
    let default = Config::default();
    let mut devices = judge.list(&raw.announce_devices, default.devices, device);
    devices.sort();
    devices.dedup();
    let hook = raw.announce_hook.as_ref();
    let hook =
        hook.and_then(|_| judge.text(&raw.announce_hook, None, |it| hook_path(it).map(Some)));
    let config = Config {
        devices,
        key: judge.text(&raw.announce_key, default.key, key),
        hook,
        owner: judge.text(&raw.announce_owner, default.owner, owner),
        ttl: judge.text(&raw.announce_ttl, default.ttl, ttl),
    };
    let is_stuck = config.is_on() && config.owner == Owner::Elected && !has_consul;
    if is_stuck {
        let remedy = "there is no Consul to elect a host through that announces VIPs; name one with --consul ADDR, or \
                      write owner = \"always\" in [announce] where no other host announces them";
        match (&raw.announce_devices, &raw.announce_hook) {
            (Some(devices), _) => judge.wrong(devices, remedy),
            (None, Some(hook)) => judge.wrong(hook, remedy),
            (None, None) => {}
        }
    }
    config
}

/// As the kernel takes it (dev_valid_name).
fn device(text: &str) -> Result<String, String> {
    let is_name = (1..16).contains(&text.len())
        && !text.contains(|it: char| it == '/' || it == ':' || it.is_whitespace())
        && ![".", ".."].contains(&text);
    if !is_name {
        return Err("write the name of a network device, such as eth0".to_owned());
    }
    if text == "lo" {
        return Err("nobody else is on lo; name the device that other hosts are on".to_owned());
    }
    Ok(text.to_owned())
}

fn key(text: &str) -> Result<String, String> {
    let is_part = |part: &str| !part.is_empty() && ![".", ".."].contains(&part);
    let is_plain = |it: char| it.is_ascii_graphic() && !"?#%\\\"".contains(it);
    if !text.split('/').all(is_part) || !text.chars().all(is_plain) {
        return Err(
            "write a key without a slash at its ends, such as lb-agent/announce".to_owned(),
        );
    }
    if text == VIPS || text.starts_with(&format!("{VIPS}/")) {
        return Err(format!(
            "the records of VIPs are below {VIPS}; write another key"
        ));
    }
    Ok(text.to_owned())
}

/// Where [`crate::vip`] has its records.
const VIPS: &str = "lb-agent/vip";

fn owner(text: &str) -> Result<Owner, String> {
    match text {
        "elected" => Ok(Owner::Elected),
        "always" => Ok(Owner::Always),
        _ => Err("write elected or always".to_owned()),
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let read = parse_duration(text);
    let range = Duration::from_secs(1)..=Duration::from_secs(3600);
    read.filter(|it| range.contains(it))
        .ok_or_else(|| "write a time from 1s to 1h, such as 10s".to_owned())
}

fn hook_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.is_absolute() {
        true => Ok(path),
        false => Err("write the whole path of a program, from `/` on".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::resolve::tests::World;

    fn mistakes(text: &str) -> Vec<String> {
        let world = World::new().toml(text);
        world.load_with_origins().unwrap_err().mistakes
    }

    #[test]
    fn nothing_is_announced_unless_that_is_asked_for() {
        let (config, _) = World::new().load_with_origins().unwrap();
        assert_eq!(config.announce, Config::default());
        assert!(!config.announce.is_on());
    }

    #[test]
    fn what_is_asked_for_holds() {
        let world = World::new().toml(
            "[sources.consul]\n[announce]\ndevices = [\"eth1\", \"eth0\", \"eth1\"]\nkey = \"rack/7\"\n\
             ttl = \"15s\"\nhook = \"/usr/local/bin/routes\"\n",
        );
        let (config, _) = world.load_with_origins().unwrap();
        let expect = Config {
            devices: vec!["eth0".to_owned(), "eth1".to_owned()],
            key: "rack/7".to_owned(),
            hook: Some("/usr/local/bin/routes".into()),
            owner: Owner::Elected,
            ttl: Duration::from_secs(15),
        };
        assert_eq!(config.announce, expect);
    }

    #[test]
    fn each_key_is_judged() {
        let told = mistakes(
            "[announce]\ndevices = [\"lo\", \"a/b\", \"\", \"eth0\"]\nkey = \"/x\"\nowner = \"me\"\n\
             ttl = \"500ms\"\nhook = \"routes\"\n",
        );
        assert_eq!(told.len(), 8, "{told:#?}");
        let told = mistakes("[announce]\nowner = \"always\"\nkey = \"lb-agent/vip\"\n");
        assert!(told[0].contains("records of VIPs"), "{told:#?}");
    }

    #[test]
    fn an_election_needs_a_consul() {
        let told = mistakes("[announce]\ndevices = [\"eth0\"]\n");
        assert_eq!(told.len(), 1);
        assert!(
            told[0].starts_with("/etc/lb/lb.toml:2: there is no Consul"),
            "{told:#?}"
        );
        let world = World::new().toml("[announce]\nowner = \"always\"\nhook = \"/h\"\n");
        let (config, _) = world.load_with_origins().unwrap();
        assert!(config.announce.is_on());
    }
}
