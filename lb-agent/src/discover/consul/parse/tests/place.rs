//! Where an instance listens.

use super::*;

#[test]
fn an_instance_without_an_address_listens_at_its_node() {
    let instance = one(|entry| entry["Service"]["Address"] = json!(""));
    assert_eq!(instance.address, "10.0.0.1:80".parse().unwrap());
}

#[test]
fn of_several_addresses_the_ipv4_one_is_used() {
    let instance = one(|entry| {
        entry["Service"]["Address"] = json!("2001:db8::1");
        entry["Service"]["TaggedAddresses"] =
            json!({"lan_ipv4": {"Address": "10.0.0.7", "Port": 81}});
    });
    assert_eq!(instance.address, "10.0.0.7:81".parse().unwrap());
}

#[test]
fn of_ipv6_addresses_the_plain_one_is_used_and_a_tagged_one_rather_than_a_host_name() {
    let instance = one(|entry| entry["Service"]["Address"] = json!("2001:db8::1"));
    assert_eq!(instance.address, "[2001:db8::1]:80".parse().unwrap());
    let instance = one(|entry| {
        entry["Service"]["Address"] = json!("web.example");
        entry["Service"]["TaggedAddresses"] =
            json!({"lan_ipv6": {"Address": "2001:db8::2", "Port": 82}});
    });
    assert_eq!(instance.address, "[2001:db8::2]:82".parse().unwrap());
}

#[test]
fn a_host_name_waits_to_be_resolved() {
    let listing = parsed(|entry| entry["Service"]["Address"] = json!("web_1.example"));
    assert_eq!((listing.instances.len(), listing.registered), (0, 1));
    let [named] = <[_; 1]>::try_from(listing.named).unwrap();
    assert_eq!(&*named.host, "web_1.example");
    assert_eq!(named.instance.address.port(), 80);
    let problem = left_out(|entry| entry["Service"]["Address"] = json!("http://x/"));
    assert!(problem.starts_with("instance n1/www-1: "), "{problem}");
    assert!(problem.contains("correct the registration"), "{problem}");
}

#[test]
fn an_instance_without_a_port_is_left_out_unless_a_tagged_address_gives_one() {
    assert!(left_out(|entry| entry["Service"]["Port"] = json!(0)).contains("has no port"));
    assert!(
        left_out(|entry| entry["Service"]["Port"] = json!(70_000)).contains("between 1 and 65535")
    );
    let with = |own: &str, tagged: Value| {
        let instance = one(|entry| {
            entry["Service"]["Address"] = json!(own);
            entry["Service"]["Port"] = json!(0);
            entry["Service"]["TaggedAddresses"] = tagged;
        });
        instance.address.to_string()
    };
    let at = |address: &str, port: u16| json!({"Address": address, "Port": port});
    let ipv4 = json!({"lan_ipv4": at("10.0.0.9", 81), "wan": at("192.0.2.9", 82)});
    assert_eq!(with("10.0.0.9", ipv4), "10.0.0.9:81");
    // Consul itself adds some without.
    let lan = json!({"lan_ipv4": at("10.0.0.9", 0), "lan": at("10.0.0.8", 81)});
    assert_eq!(with("10.0.0.9", lan), "10.0.0.8:81");
    let wan = json!({"lan": at("10.0.0.8", 0), "wan": at("192.0.2.9", 82)});
    assert_eq!(with("db.test", wan), "192.0.2.9:82");
}

#[test]
fn in_another_datacenter_the_address_is_the_one_that_consul_puts_in_the_first_place() {
    let entry = json!([{
        "Node": {"Node": "n1", "Address": "2001:db8::1"},
        "Service": {
            "ID": "www-1", "Service": "www", "Address": "2001:db8::9", "Port": 80,
            "TaggedAddresses": {"lan_ipv4": {"Address": "10.0.0.9", "Port": 80}}
        },
    }])
    .to_string();
    for (foreign, address) in [(false, "10.0.0.9:80"), (true, "[2001:db8::9]:80")] {
        let standpoint = Standpoint {
            foreign,
            ..Standpoint::default()
        };
        let listing = listing("www", entry.as_bytes(), &standpoint).unwrap();
        assert_eq!(listing.instances[0].address.to_string(), address);
    }
}

#[test]
fn an_address_that_no_server_can_have_is_left_out() {
    for address in [
        "0.0.0.0",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "fe80::1",
        "::ffff:0.0.0.0",
        "::ffff:169.254.169.254",
    ] {
        let problem = left_out(|entry| entry["Service"]["Address"] = json!(address));
        assert!(problem.contains("cannot be a server's"), "{problem}");
    }
}
