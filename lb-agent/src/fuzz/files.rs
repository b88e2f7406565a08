//! Files of the host: those of its resolver, those of its kernel, and what the agent kept in the state directory.

use std::net::Ipv4Addr;

use super::named;
use crate::{
    assemble, config,
    discover::consul,
    dns, doctor, host_dns,
    snapshot::ServiceName,
    vip::{self, Pool, Pools},
};

/// A `resolv.conf`.
pub fn resolv_conf(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let pools = Pools::default();
    let edited = host_dns::fuzz::edited(Some(text), pools.own());
    assert_eq!(edited.named, Some(pools.own()));
    assert_eq!(edited.again, edited.with);
    assert_eq!(edited.restored.unwrap_or_default(), edited.rest);
    // Whoever is asked beside us stays the same, and the agent never asks itself.
    let upstreams = |text: &str| match dns::fuzz::upstreams(pools, text) {
        Ok(upstreams) => upstreams,
        Err(error) => panic!("{error}"),
    };
    let others = upstreams(&edited.rest);
    assert_eq!(upstreams(&edited.with), others);
    assert!(
        others
            .iter()
            .all(|it| it.ip() != pools.own() && it.port() == 53)
    );
    // What is said of a file does not depend on our line.
    let judged = host_dns::fuzz::judged;
    assert_eq!(judged(&edited.with), judged(&edited.rest));
}

/// Four lines: the name of a process, where something is mounted, the path of a cgroup, and an address with a port. They
/// are read from tables as the kernel writes them.
pub fn proc_files(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let mut lines = text.splitn(4, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (command, point, group, listens) = (line(), line(), line(), line());

    // A command may have any name.
    let stat = format!("7 ({command}) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 300 0 0");
    let (cpu, started) = crate::admin::fuzz::of_stat(&stat, "btime 1000");
    assert_eq!((cpu, started), (Some(2.0), Some(1003.0)));

    let mut escaped = point.replace('\\', "\\134");
    for (plain, code) in [(" ", "\\040"), ("\t", "\\011"), ("\n", "\\012")] {
        escaped = escaped.replace(plain, code);
    }
    let mountinfo = format!(
        "22 1 0:20 / /sys rw shared:7 - sysfs sysfs rw\n35 22 0:30 / {escaped} rw shared:9 - cgroup2 none rw\n"
    );
    if point.starts_with('/') {
        let mounted = config::fuzz::cgroup_mount(&mountinfo);
        assert_eq!(mounted.as_deref(), Some(std::path::Path::new(point)));
        let mounts = doctor::host::fuzz::mounts(&mountinfo);
        assert_eq!(mounts[1], (point.to_owned(), "cgroup2".to_owned()));
    }

    let id = "0123456789abcdef".repeat(4);
    let found = crate::sockets::fuzz::container(&format!("0::/{group}/docker-{id}.scope\n"));
    assert_eq!(found.as_deref(), Some(&id[..12]));

    if let Ok(address) = listens.trim().parse::<std::net::SocketAddr>() {
        let hex = |bytes: &[u8]| -> String {
            let words = bytes
                .chunks_exact(4)
                .filter_map(|it| it.first_chunk().copied());
            words
                .map(|it| format!("{:08X}", u32::from_ne_bytes(it)))
                .collect()
        };
        let (ip, nothing) = match address.ip() {
            std::net::IpAddr::V4(ip) => (hex(&ip.octets()), hex(&[0; 4])),
            std::net::IpAddr::V6(ip) => (hex(&ip.octets()), hex(&[0; 16])),
        };
        let port = address.port();
        let row = format!(
            "  0: {ip}:{port:04X} {nothing}:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1"
        );
        let expect = Some((address.ip().to_canonical(), port));
        assert_eq!(doctor::host::fuzz::listener("tcp", &row), expect);
        assert_eq!(doctor::host::fuzz::listener("udp", &row), expect);
    }
    // And whatever else is in them.
    for table in text.lines() {
        let _ = doctor::host::fuzz::listener("tcp", table);
    }
    let _ = doctor::host::fuzz::rest(&text);
    let _ = config::fuzz::cgroup_mount(&text);
    let _ = crate::admin::fuzz::of_stat(&text, &text);
}

/// What the agent kept: `orders` or `catalog` in a line, then the file.
pub fn state_files(data: &[u8]) {
    let Some(end) = data.iter().position(|&byte| byte == b'\n') else {
        return;
    };
    let (kind, text) = (&data[..end], &data[end + 1..]);
    match kind {
        b"orders" => {
            let Some(orders) = assemble::fuzz::kept_orders(text) else {
                return;
            };
            let again = assemble::fuzz::kept_orders(&assemble::fuzz::keep_orders(&orders));
            assert_eq!(again.as_ref(), Some(&orders));
        }
        b"catalog" => {
            let Some(kept) = consul::fuzz::kept(text) else {
                return;
            };
            let again = consul::fuzz::kept(&kept);
            assert_eq!(again.as_deref(), Some(&kept[..]));
        }
        _ => {}
    }
}

/// Two lines: the records of VIPs that this host kept, and the addresses that names have or had.
pub fn vips_kept(data: &[u8]) {
    let end = data.iter().position(|&byte| byte == b'\n');
    let (records, known) = data.split_at(end.unwrap_or(data.len()));
    let Ok(pool) = Pool::try_from(POOL) else {
        panic!("{POOL} is no pool");
    };
    let others = ["a", "b"].map(ServiceName::whole);
    let outcome = vip::fuzz::kept(pool, records, known, others);
    outcome.problems.iter().for_each(named);
    let mut taken = std::collections::BTreeSet::new();
    let waiting = outcome.claims.iter().map(|(address, name)| (name, address));
    for (name, address) in outcome.by_name.iter().chain(waiting) {
        assert!(pool.serves(*address) && taken.insert(address), "{address}");
        let recorded = outcome.recorded.get(address);
        let is_its_own = recorded.is_none_or(|owner| owner.as_ref() == Some(name));
        assert!(is_its_own, "{address} is not recorded for {name}");
    }
    for name in outcome.names.keys() {
        let is_told = |it: &crate::catalog::Problem| it.subject == format!("service {name}");
        let is_served = outcome.by_name.contains_key(name)
            || outcome.claims.values().any(|it| it == name)
            || outcome.problems.iter().any(is_told);
        assert!(is_served, "{name} has no address, and nobody is told");
    }
}

/// So small that records crowd it.
const POOL: ipnet::Ipv4Net = ipnet::Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 28);
