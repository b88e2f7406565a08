use std::io;

use clap::Parser;

use super::*;
use crate::registrar::{Addressing, Deregister};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: RegisterArgs,
}

fn load_with(file: Option<&str>, flags: &[&str]) -> Result<RegisterConfig, Error> {
    let words = ["register"].iter().chain(flags).map(OsString::from);
    let line = Line::try_parse_from(with_long_flags(words)).unwrap();
    let read = |_: &std::path::Path| {
        let text = file.map(str::to_owned);
        text.ok_or_else(|| io::ErrorKind::NotFound.into())
    };
    let outside = Outside {
        variable: &|_| None,
        read: &read,
    };
    RegisterConfig::load_from(&line.args, outside)
}

fn load(flags: &[&str]) -> RegisterConfig {
    load_with(None, flags).unwrap()
}

#[track_caller]
fn mistake(flags: &[&str], part: &str) {
    let error = load_with(None, flags).unwrap_err();
    assert_eq!(error.mistakes.len(), 1, "{error}");
    assert!(error.mistakes[0].contains(part), "{error}");
}

#[test]
fn registrators_own_command_line_is_understood_with_one_dash_or_two() {
    for dashes in ["-", "--"] {
        let flags = [
            "internal",
            "ip=192.0.2.1",
            "tags=a\\,b,{{.Name}}",
            "ttl=30",
            "ttl-refresh=10",
            "resync=5",
            "deregister=on-success",
            "cleanup",
            "retry-attempts=-1",
            "retry-interval=2000",
            "explicit=true",
            "useIpFromLabel=net.ip",
        ];
        let flags: Vec<_> = flags.iter().map(|flag| format!("{dashes}{flag}")).collect();
        let mut flags: Vec<_> = flags.iter().map(|flag| &**flag).collect();
        flags.push("consul://consul:8500");
        let config = load(&flags);
        assert_eq!(config.consul.addresses[0].to_string(), "http://consul:8500");
        let registrar = config.registrar;
        assert_eq!(registrar.settings.addressing, Addressing::Internal);
        assert_eq!(registrar.settings.ip, Some([192, 0, 2, 1].into()));
        let tags: Vec<_> = registrar
            .settings
            .tags
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(tags, ["a,b", "{{.Name}}"]);
        assert_eq!(registrar.settings.ttl, Some(Duration::from_secs(30)));
        assert_eq!(registrar.ttl_refresh, Some(Duration::from_secs(10)));
        assert_eq!(registrar.resync, Duration::from_secs(5));
        assert_eq!(registrar.deregister, Deregister::OnSuccess);
        assert!(registrar.settings.explicit);
        assert_eq!(registrar.settings.address_label.as_deref(), Some("net.ip"));
    }
    // Values may stand apart.
    assert_eq!(
        load(&["-ip", "192.0.2.7"]).registrar.settings.ip,
        Some([192, 0, 2, 7].into())
    );
    assert_eq!(
        load(&["-internal=false"]).registrar.settings.addressing,
        Addressing::Published
    );
}

#[test]
fn registry_uris_are_addresses_of_consul_and_the_others_are_refused() {
    for (uri, address) in [
        ("consul://consul:8500", "http://consul:8500"),
        ("consul://", "http://127.0.0.1:8500"),
        ("consul-tls://consul:8501/", "https://consul:8501"),
        ("consul-unix:///run/consul.sock", "unix:///run/consul.sock"),
        ("consul:8500", "http://consul:8500"),
        ("https://consul:8501", "https://consul:8501"),
    ] {
        assert_eq!(
            load(&[uri]).consul.addresses[0].to_string(),
            address,
            "{uri}"
        );
    }
    assert_eq!(
        load(&[]).consul.addresses[0].to_string(),
        "http://127.0.0.1:8500"
    );
    for uri in [
        "consulkv://c:1/p",
        "etcd://e:1",
        "skydns2://s:1",
        "zookeeper://z:1",
    ] {
        mistake(
            &[uri],
            "is not supported: containers are registered in Consul's catalog only",
        );
    }
}

#[test]
fn the_file_speaks_where_no_flag_does() {
    let file = "[sources.consul]\naddress = \"c:1\"\n[registrar]\nhost = \"h\"\ninternal = true\n\
                networks = [\"a\"]\nattributes = [\"Region\"]\ndrain = \"5s\"\nadopt = [\"old\"]\n\
                deregister_on_exit = true\n";
    let config = load_with(Some(file), &["--host=mine"]).unwrap();
    assert_eq!(config.consul.addresses[0].to_string(), "http://c:1");
    assert_eq!(config.registrar.host.as_deref(), Some("mine"));
    assert_eq!(config.registrar.settings.networks, ["a"]);
    assert!(
        config
            .registrar
            .settings
            .attributes
            .unwrap()
            .contains("region")
    );
    assert_eq!(config.registrar.drain, Duration::from_secs(5));
    assert!(config.registrar.deregister_on_exit && config.registrar.adopt.contains("old"));
}

#[test]
fn what_is_wrong_is_told_with_its_flag_and_a_remedy() {
    mistake(&["--ip=x"], "--ip: `x`: write the IP address");
    mistake(&["--tags={{toUpper .Name}}"], "is not supported; use .ID");
    mistake(&["--deregister=never"], "write always or on-success");
    mistake(&["--ttl-refresh=5"], "there is no ttl");
    mistake(&["--ttl=5", "--ttl-refresh=5"], "must be shorter than ttl");
    mistake(&["--host=a:b"], "write a host name");
    mistake(&["--docker=ssh://x"], "--docker: `ssh://x`: write unix://");
    mistake(&["--resync=soon"], "write a time such as 30s");
}

#[test]
fn without_ttl_and_with_zeroes_the_defaults_hold() {
    let config = load(&["-ttl", "0", "-ttl-refresh", "0", "-resync", "0"]);
    assert_eq!(config.registrar, crate::registrar::Config::default());
    assert_eq!(config.docker.give_up_after, Some(Duration::from_secs(60)));
    assert_eq!(load(&["--give-up=0"]).docker.give_up_after, None);
}

#[test]
fn other_addresses_of_the_host_have_a_tag_each() {
    let config = load(&[
        "--tagged-address=wan=192.0.2.9",
        "--tagged-address",
        "six=2001:db8::9",
    ]);
    let tagged = config.registrar.settings.tagged;
    assert_eq!(tagged["wan"], std::net::IpAddr::from([192, 0, 2, 9]));
    assert_eq!(tagged["six"].to_string(), "2001:db8::9");
    let file = "[registrar]\ntagged_addresses = [\"lan=10.0.0.1\"]\n";
    let config = load_with(Some(file), &["--config=x"]).unwrap();
    assert_eq!(config.registrar.settings.tagged.len(), 1);
    for (flag, part) in [
        ("192.0.2.9", "write a tag of letters"),
        ("=192.0.2.9", "write a tag of letters"),
        ("a b=192.0.2.9", "write a tag of letters"),
        ("wan=here", "write the IP address of this host"),
        ("wan=0.0.0.0", "write the IP address of this host"),
        ("virtual=192.0.2.9", "a meaning of its own"),
        ("lan_ipv4=192.0.2.9", "a meaning of its own"),
        ("wan=192.0.2.9,wan=192.0.2.8", "`wan` is there twice"),
    ] {
        mistake(&[&format!("--tagged-address={flag}")], part);
    }
}
