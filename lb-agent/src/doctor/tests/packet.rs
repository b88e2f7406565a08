//! Faults of the packet path.

use super::*;

/// A host where packets are balanced at `eth0`, and nothing is wrong.
fn with_card() -> (Tree, Config) {
    let tree = Tree::clean();
    for (path, text) in [
        ("proc/sys/net/ipv4/ip_forward", "1\n"),
        ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
        ("proc/sys/net/ipv4/conf/eth0/rp_filter", "2\n"),
    ] {
        tree.plant(path, text);
    }
    let args = RunArgs {
        services: Some("/s.toml".into()),
        packet_card: vec!["eth0".to_owned()],
        ..RunArgs::default()
    };
    (tree, configured(&args))
}

/// What is planted, and what must be found of it.
type PacketFault = (fn(&mut Facts), Expected);

/// What is wrong where `eth0` has this address.
fn packet_faults(tree: &Tree, config: &Config, plant: fn(&mut Facts)) -> Vec<Finding> {
    let mut facts = tree.facts(config);
    let paths = facts.host.paths.as_mut().unwrap();
    paths.addresses = Some(vec![("eth0".to_owned(), "192.0.2.7/24".parse().unwrap())]);
    // As most cards are.
    let driver = Driver {
        name: Some("ixgbe".to_owned()),
        joins: Some(false),
        takes_out_tags: Some(true),
        checks: Some(true),
    };
    paths.drivers = [("eth0".to_owned(), driver)].into();
    plant(&mut facts);
    faults(judge(&facts, Some(config)))
}

#[test]
fn each_fault_of_the_packet_path_is_found_alone() {
    let (tree, config) = with_card();
    assert_eq!(packet_faults(&tree, &config, |_| ()), []);
    let plants: [PacketFault; 8] = [
        (
            |it| it.host.paths.as_mut().unwrap().devices.clear(),
            ("cards", Mark::Error, "no network device eth0", "ip link"),
        ),
        (
            |it| {
                let paths = it.host.paths.as_mut().unwrap();
                paths.drivers.get_mut("eth0").unwrap().joins = Some(true);
            },
            ("cards", Mark::Error, "(LRO)", "ethtool -K eth0 lro off"),
        ),
        (
            |it| {
                let vlan = ("eth0.5".to_owned(), "eth0".to_owned());
                it.host.paths.as_mut().unwrap().vlans.push(vlan);
            },
            (
                "drivers",
                Mark::Warning,
                "if VIPs are reached by eth0.5",
                "ethtool -K eth0 rxvlan off",
            ),
        ),
        (
            |it| {
                let net = "169.254.0.1/16".parse().unwrap();
                let paths = it.host.paths.as_mut().unwrap();
                let addresses = paths.addresses.as_mut().unwrap();
                // No client is behind the first one.
                addresses.extend(["usb0", "br0"].map(|it| (it.to_owned(), net)));
                paths.inside.insert("br0".to_owned());
            },
            (
                "networks",
                Mark::Warning,
                "169.254.0.0/16 on br0 contains 169.254.255.77",
                "give br0 another network",
            ),
        ),
        (
            |it| it.host.paths.as_mut().unwrap().forwards = Some(0),
            (
                "forwarding",
                Mark::Warning,
                "sends no packets on",
                "net.ipv4.ip_forward=1",
            ),
        ),
        (
            |it| {
                it.host.rp_filter.insert("all".to_owned(), 1);
            },
            // The stricter one of both is that with the greater number, and eth0 has 2.
            ("", Mark::Ok, "", ""),
        ),
        (
            |it| it.host.paths.as_mut().unwrap().local_ports = Some(1024..=65_535),
            (
                "ports of full NAT",
                Mark::Warning,
                "61000-65535 overlaps the ports 1024-65535",
                "[packet] ports",
            ),
        ),
        (
            |it| it.host.paths.as_mut().unwrap().addresses = Some(Vec::new()),
            (
                "source",
                Mark::Error,
                "eth0 has no address",
                "[packet] source",
            ),
        ),
    ];
    for (plant, expected) in plants {
        let found = packet_faults(&tree, &config, plant);
        match expected.0 {
            "" => assert_eq!(found, []),
            _ => expect(&found, &[expected]),
        }
    }
    let mut generic = config.clone();
    generic.packet.as_mut().unwrap().xdp = Xdp::Generic;
    assert_eq!(packet_faults(&tree, &generic, |_| ()), []);
    let found = packet_faults(&tree, &generic, |it| {
        let drivers = &mut it.host.paths.as_mut().unwrap().drivers;
        drivers.get_mut("eth0").unwrap().name = Some("virtio_net".to_owned());
    });
    let open = (
        "drivers",
        Mark::Warning,
        "leaves checksums to whoever receives",
        "guest_csum=off",
    );
    expect(&found, &[open]);
    let virtual_card = Driver {
        name: Some("virtio_net".to_owned()),
        checks: Some(true),
        ..Driver::default()
    };
    for (driver, words) in [
        (
            virtual_card,
            "should XDP not run in the driver: eth0 is a virtual card",
        ),
        (Driver::default(), "the kernel does not tell"),
    ] {
        let mut facts = tree.facts(&config);
        let paths = facts.host.paths.as_mut().unwrap();
        paths.drivers = [("eth0".to_owned(), driver)].into();
        let found = judge(&facts, Some(&config));
        let found = found.0.iter().find(|it| it.check == "drivers").unwrap();
        assert_eq!(found.mark, Mark::Unknown, "{found:?}");
        assert!(found.finding.contains(words), "{found:?}");
    }
    tree.plant("proc/sys/net/ipv4/conf/eth0/rp_filter", "1\n");
    let found = packet_faults(&tree, &config, |_| ());
    let strict = (
        "reverse paths",
        Mark::Warning,
        "strict on eth0",
        "conf.eth0.rp_filter=2",
    );
    expect(&found, &[strict]);
    let mut strange = config.clone();
    strange.packet.as_mut().unwrap().source = Some([192, 0, 2, 8].into());
    tree.plant("proc/sys/net/ipv4/conf/eth0/rp_filter", "0\n");
    let found = packet_faults(&tree, &strange, |_| ());
    let source = (
        "source",
        Mark::Error,
        "no device of this host has the address 192.0.2.8",
        "ip addr",
    );
    expect(&found, &[source]);
}
