//! What the facts of the devices mean on which VIPs are announced. Pure.

use super::{Finding, facts::Host};
use crate::{announce, config::Config};

/// The bit of linux/capability.h.
const CAP_NET_RAW: u64 = 1 << 13;

/// The findings; none where nothing is to be announced.
pub(super) fn announce(host: &Host, config: &Config) -> Vec<Finding> {
    let check = "announce";
    let devices = &config.announce.devices;
    if devices.is_empty() {
        return Vec::new();
    }
    let mut found = Vec::new();
    if host
        .capabilities
        .is_some_and(|held| held & CAP_NET_RAW == 0)
    {
        found.push(Finding::error(
            check,
            "too few capabilities for ARP: CAP_NET_RAW missing, so `run` does not start",
            "give it CAP_NET_RAW, or leave out [announce] devices",
        ));
    }
    let Some(links) = &host.links else {
        found.push(Finding::unknown(
            check,
            "the devices of this host are not known",
        ));
        return found;
    };
    for device in devices {
        let trouble = announce::trouble(links.get(device));
        found.push(match trouble {
            None => Finding::ok(check, format!("{device} has a link")),
            Some((what, remedy)) => Finding::warning(check, format!("{device}: {what}"), remedy),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admin::report::Mark, config::Outside};

    fn config(devices: &[&str]) -> Config {
        let text = format!("[announce]\nowner = \"always\"\ndevices = {devices:?}\n");
        let args = crate::config::RunArgs {
            services: Some("/s.toml".into()),
            config: Some("/lb.toml".into()),
            cgroup: Some("/sys/fs/cgroup".into()),
            ..Default::default()
        };
        let outside = Outside {
            variable: &|_| None,
            read: &|path| match path.ends_with("lb.toml") {
                true => Ok(text.clone()),
                false => Err(std::io::ErrorKind::NotFound.into()),
            },
        };
        Config::load_from(&args, outside).unwrap()
    }

    #[test]
    fn nothing_is_said_where_nothing_is_announced() {
        assert_eq!(announce(&Host::default(), &config(&[])), []);
    }

    #[test]
    fn a_device_that_cannot_be_used_is_told_with_what_to_do() {
        let host = Host {
            links: announce::links().ok(),
            capabilities: Some(!CAP_NET_RAW),
            ..Host::default()
        };
        let found = announce(&host, &config(&["lb-none0"]));
        let marks: Vec<_> = found.iter().map(|it| it.mark).collect();
        assert_eq!(marks, [Mark::Error, Mark::Warning], "{found:#?}");
        assert!(found[0].finding.contains("CAP_NET_RAW"), "{found:#?}");
        assert_eq!(found[1].finding, "lb-none0: there is no such device");
        let unknown = Host {
            links: None,
            ..host
        };
        let found = announce(&unknown, &config(&["lb-none0"]));
        assert_eq!(found[1].mark, Mark::Unknown);
    }
}
