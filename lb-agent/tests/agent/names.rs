//! The three ways in: a name and a connect, a plain connect to any port, HTTP by Host.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    process::Command,
};

use hickory_proto::{
    op::ResponseCode,
    rr::{
        Name, RData, RecordType,
        rdata::{AAAA, PTR},
    },
};

use crate::{
    dig::dig,
    kit::{Instance, World, dns, dns_message, greeting, service},
};

const RESOLVER: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);

/// `www_hello` with an alias, and `www` of which one instance carries the tag `hello`, the other `world.dev`.
fn two_schemes(instances: [&Instance; 3]) -> String {
    let [a, b, c] = instances.map(|it| {
        let (id, address) = (it.id(), it.address());
        format!(
            "[[service.instance]]\nid = \"{id}\"\naddress = \"{}\"\nport = {}\n",
            address.ip(),
            address.port()
        )
    });
    format!(
        "[[service]]\nname = \"api_v1\"\n{a}tags = [\"server_alias=shop.example.com\"]\n\
         [[service]]\nname = \"www\"\n{b}tags = [\"hello\"]\n{c}tags = [\"world.dev\"]\n"
    )
}

fn world() -> (World, [Instance; 3]) {
    let mut instances = None;
    let world = World::with_services(|netns| {
        let start = |(id, last)| Instance::start(netns, id, [127, 0, 1, last]);
        let all = instances.insert([("a", 1), ("b", 2), ("c", 3)].map(start));
        two_schemes([&all[0], &all[1], &all[2]])
    });
    world.await_usable("api_v1", &["a"]);
    world.await_usable("www", &["b", "c"]);
    world.await_usable("www.hello", &["b"]);
    (world, instances.unwrap())
}

#[test]
fn services_parts_and_aliases_have_names_for_their_virtual_addresses() {
    let (world, _instances) = world();
    let report = world.report();
    let vip = |service: &str| report.vip(service).unwrap();
    let [whole, www, hello, dev] = ["api_v1", "www", "www.hello", "www.world.dev"].map(vip);
    for (name, address) in [
        ("api_v1.", whole),
        ("api.v1.", whole),
        ("API.v1.", whole),
        ("shop.example.com.", whole),
        ("api_v1.virtual.consul.", whole),
        ("www.", www),
        ("www.hello.", hello),
        ("www.world.dev.", dev),
    ] {
        let answer = dns(&world.netns, RESOLVER, name).unwrap();
        assert_eq!(answer, (ResponseCode::NoError, vec![address]), "{name}");
    }
    let all = [whole, www, hello, dev];
    let different: std::collections::BTreeSet<_> = all.into_iter().collect();
    assert_eq!(different.len(), all.len(), "{all:?}");
    world.finish();
}

#[test]
fn a_service_has_a_twin_a_port_and_a_name_for_its_addresses() {
    let (world, _instances) = world();
    let vip = world.report().vip("www.hello").unwrap();
    let [_, _, high, low] = vip.octets();
    let host = u16::from_be_bytes([high, low]);
    let twin = Ipv6Addr::new(0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, host);
    let ask = |name: &str, kind| dns_message(&world.netns, RESOLVER, name, kind).unwrap();
    let answer = ask("www.hello.", RecordType::AAAA);
    assert_eq!(answer.answers[0].data, RData::AAAA(AAAA(twin)));
    for address in [IpAddr::V4(vip), IpAddr::V6(twin)] {
        let answer = ask(&Name::from(address).to_ascii(), RecordType::PTR);
        let name = Name::from_ascii("www.hello.").unwrap();
        assert_eq!(answer.answers[0].data, RData::PTR(PTR(name)), "{address}");
    }
    let answer = ask("_http._tcp.www.hello.", RecordType::SRV);
    assert_eq!(answer.answers.len(), 1, "{answer}");
    assert_eq!(answer.additionals.len(), 2, "{answer}");
    world.finish();
}

#[test]
fn the_resolver_and_the_unreachable_route_are_there_in_both_families() {
    let (world, _instances) = world();
    let network = world.network();
    for part in [
        "198.18.0.1/32",
        "unreachable 198.18.0.0/16",
        "fd62:6c62:76:1::1/128",
        "unreachable fd62:6c62:76:1::/64",
    ] {
        assert!(network.contains(part), "{part} in {network}");
    }
    let own = IpAddr::from([0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 1]);
    let answer = dns_message(&world.netns, own, "www.hello.", RecordType::A).unwrap();
    assert_eq!(answer.answers.len(), 1, "{answer}");
    world.finish();
}

#[test]
fn dig_is_answered_over_both_protocols_and_families() {
    let (world, _instances) = world();
    let report = world.report();
    let vip = report.vip("api_v1").unwrap().to_string();
    let vip6 = report.service("api_v1").unwrap()["vip6"].as_str().unwrap();
    let twin = IpAddr::from([0xfd62, 0x6c62, 0x76, 1, 0, 0, 0, 1]);
    for server in [RESOLVER.into(), twin] {
        for protocol in ["UDP", "TCP"] {
            for (kind, address) in [("A", &*vip), ("AAAA", vip6)] {
                let records = dig(&world.netns, server, protocol, "api.v1", kind);
                let [record] = &records[..] else {
                    panic!("{records:?}");
                };
                let [name, _, class, found, data] = &record[..] else {
                    panic!("{record:?}");
                };
                assert_eq!(
                    [name, class, found, data],
                    ["api.v1.", "IN", kind, address],
                    "{server} over {protocol}"
                );
            }
        }
    }
    world.finish();
}

#[test]
fn a_host_without_ipv6_is_served_without_it() {
    let mut instance = None;
    let world = World::with_services(|netns| {
        let off = "/proc/sys/net/ipv6/conf/all/disable_ipv6";
        netns.enter(|| fs::write(off, "1").unwrap()).unwrap();
        service(
            "api",
            &[instance.insert(Instance::start(netns, "a", [127, 0, 1, 1]))],
        )
    });
    world.await_usable("api", &["a"]);
    let answer = dns_message(&world.netns, RESOLVER, "api.", RecordType::AAAA).unwrap();
    assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answer.answers.len(), 0);
    assert!(world.said().contains("no IPv6"), "{}", world.said());
    assert!(!world.network().contains("fd62"), "{}", world.network());
    world.finish();
}

#[test]
fn a_name_without_an_address_of_the_other_family_still_exists() {
    let (world, _instances) = world();
    for name in ["www.hello.localhost.", "10.1.2.3.nip.io."] {
        let answer = dns_message(&world.netns, RESOLVER, name, RecordType::AAAA).unwrap();
        // "No such name" would make a client give up that asks for both.
        assert_eq!(
            answer.metadata.response_code,
            ResponseCode::NoError,
            "{name}"
        );
        assert_eq!(answer.answers.len(), 0, "{name}");
    }
    world.finish();
}

#[test]
fn names_that_carry_an_address_and_names_of_nobody_are_answered() {
    let (world, _instances) = world();
    for name in [
        "x.10.1.2.3.nip.io.",
        "10-1-2-3.sslip.io.",
        "10.1.2.3.xip.io.",
    ] {
        let (_, addresses) = dns(&world.netns, RESOLVER, name).unwrap();
        assert_eq!(addresses, [Ipv4Addr::new(10, 1, 2, 3)], "{name}");
    }
    // A container that asks for this means its host.
    let (_, addresses) = dns(&world.netns, RESOLVER, "api.v1.127.0.0.1.xip.io.").unwrap();
    assert_eq!(addresses, [RESOLVER]);
    // There is nobody to forward it to, and unknown is not "does not exist".
    let (code, addresses) = dns(&world.netns, RESOLVER, "nobody.example.org.").unwrap();
    assert_eq!(addresses, Vec::<Ipv4Addr>::new());
    assert_ne!(code, ResponseCode::NoError);
    assert_ne!(code, ResponseCode::NXDomain);
    world.finish();
}

#[test]
fn the_c_library_of_a_host_that_installed_the_resolver_finds_services_and_their_names() {
    let (world, _instances) = world();
    let vip = world.report().vip("www.hello").unwrap();
    // The host's own file, which leads nowhere and searches where nothing is.
    let etc = world.path("root/etc");
    fs::create_dir_all(&etc).unwrap();
    let before = "search localdomain\nnameserver 127.0.0.9\n";
    fs::write(etc.join("resolv.conf"), before).unwrap();
    let resolver = |action: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_lb-agent"))
            .args(["resolver", action, "-o", "json", "--root"])
            .arg(world.path("root"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(resolver("install").contains(&format!("\"address\":\"{RESOLVER}\"")));
    assert!(resolver("status").contains("\"installed\":true"));

    fs::write(etc.join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    for name in ["resolv.conf", "nsswitch.conf"] {
        let over = Path::new("/etc").join(name);
        if over.exists() {
            world.netns.bind(&etc.join(name), &over).unwrap();
        }
    }
    let getent = |arguments: &[&str]| {
        let ask = || Command::new("getent").args(arguments).output();
        let output = world.netns.enter(ask).unwrap().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, vip) in [
        ("www.hello", vip),
        ("www", world.report().vip("www").unwrap()),
    ] {
        let said = getent(&["ahostsv4", name]);
        assert!(said.starts_with(&format!("{vip} ")), "{said}");
        let said = getent(&["ahosts", name]);
        assert!(said.contains("fd62:6c62:76:1::"), "{said}");
    }
    let said = getent(&["hosts", &vip.to_string()]);
    assert!(said.trim_end().ends_with(" www.hello"), "{said}");

    assert!(resolver("uninstall").contains("\"installed\":false"));
    let after = fs::read_to_string(etc.join("resolv.conf")).unwrap();
    assert_eq!(after, before);
    world.finish();
}

#[test]
fn a_flow_through_a_virtual_address_works_on_any_port_and_sees_it_as_its_peer() {
    let (world, _instances) = world();
    let report = world.report();
    for (service, port, expect) in [
        ("api_v1", 22, "a"),
        ("api_v1", 65_535, "a"),
        ("www.hello", 5432, "b"),
        ("www.world.dev", 1, "c"),
    ] {
        let vip = report.vip(service).unwrap();
        let stream = world.connect(vip, port).unwrap();
        assert_eq!(greeting(&stream).unwrap(), expect, "{service}");
        assert_eq!(stream.peer_addr().unwrap(), (vip, port).into());
    }
    world.finish();
}

#[test]
fn addresses_of_the_pool_without_a_service_are_refused_at_once() {
    let (world, _instances) = world();
    let given: Vec<_> = ["api_v1", "www", "www.hello", "www.world.dev"]
        .iter()
        .filter_map(|service| world.report().vip(service))
        .collect();
    let free = (2..=255).map(|last| Ipv4Addr::new(198, 18, 200, last));
    for address in free.filter(|address| !given.contains(address)).take(5) {
        let error = world.connect(address, 80).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{address}");
    }
    world.finish();
}

#[test]
fn the_front_routes_by_host_in_both_naming_schemes() {
    let (world, _instances) = world();
    for (host, expect) in [
        ("api.v1", "a"),
        ("api.v1.localhost", "a"),
        ("API.V1.localhost:8080", "a"),
        ("api.v1.127.0.0.1.nip.io", "a"),
        ("shop.example.com", "a"),
        ("www.hello", "b"),
        ("www.hello.127.0.0.1.xip.io", "b"),
        ("www.world.dev.localhost", "c"),
    ] {
        let answer = world.front(host).unwrap();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, expect),
            "{host}"
        );
    }
    let nobody = world.front("nobody.localhost").unwrap();
    assert_eq!(nobody.status, 503, "{nobody:?}");
    world.finish();
}

#[test]
fn flows_and_requests_are_spread_over_all_instances() {
    let mut instances = None;
    let world = World::with_services(|netns| {
        let start = |(id, last)| Instance::start(netns, id, [127, 0, 1, last]);
        let all = instances.insert([("a", 1), ("b", 2), ("c", 3)].map(start));
        service("www_hello", &[&all[0], &all[1], &all[2]])
    });
    let vip = world.await_usable("www_hello", &["a", "b", "c"]);
    let streams: Vec<_> = (0..30).map(|_| world.connect(vip, 80).unwrap()).collect();
    let mut met: Vec<_> = streams.iter().map(|it| greeting(it).unwrap()).collect();
    met.sort_unstable();
    // Of two random choices the less loaded: nobody stays behind by much.
    for id in ["a", "b", "c"] {
        let share = met.iter().filter(|&it| it == id).count();
        assert!((8..=12).contains(&share), "{id} has {share} of {met:?}");
    }
    // Round robin for each of the front's workers.
    let mut met: Vec<_> = (0..12)
        .map(|_| world.front("www.hello.localhost").unwrap().body)
        .collect();
    met.sort_unstable();
    met.dedup();
    assert_eq!(met, ["a", "b", "c"]);
    world.finish();
}
