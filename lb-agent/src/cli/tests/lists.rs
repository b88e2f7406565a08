//! Flows, clients, VIPs and options, each in a table.

use super::*;

pub(super) fn flow_list() -> FlowList {
    let known = Flow {
        service: Some("www_hello".to_owned()),
        vip: "198.18.12.7:80".parse().unwrap(),
        backend: Some("file/a".to_owned()),
        address: "10.0.0.1:8080".parse().unwrap(),
        protocol: "tcp".to_owned(),
        state: "established".to_owned(),
        client: "172.17.0.2:40000".parse().unwrap(),
        age_seconds: 75,
        netns: 4026532178,
        uid: 0,
        pid: Some(4711),
        command: Some("cu\u{1b}rl".to_owned()),
        container: Some("0123456789ab".to_owned()),
    };
    let unknown = Flow {
        service: None,
        backend: None,
        pid: None,
        command: None,
        container: None,
        ..known.clone()
    };
    let packets = PacketFlow {
        service: Some("www_hello".to_owned()),
        vip: "198.18.12.7:80".parse().unwrap(),
        backend: None,
        address: None,
        protocol: "tcp".to_owned(),
        way: Some("full".to_owned()),
        state: "established".to_owned(),
        client: "192.0.2.9:40000".parse().unwrap(),
        local_port: 61_000,
        age_seconds: Some(75),
        idle_seconds: 3,
    };
    FlowList {
        flows: vec![known, unknown],
        left_out: 5,
        packets: vec![packets],
        packets_left_out: 2,
        unseen: Some("no right".to_owned()),
    }
}

#[test]
fn flows_are_a_table_and_what_is_not_in_it_is_said() {
    let list = flow_list();
    let text = flows::print(&list, Output::Wide).unwrap();
    let lines: Vec<Vec<&str>> = text
        .lines()
        .take(4)
        .map(|line| {
            line.split("  ")
                .map(str::trim)
                .filter(|it| !it.is_empty())
                .collect()
        })
        .collect();
    let line = |service: &'static str, backend, pid, command, container| {
        let (client, vip, to) = ("172.17.0.2:40000", "198.18.12.7:80", "10.0.0.1:8080");
        let flow = [
            client,
            vip,
            service,
            backend,
            to,
            "tcp",
            "socket",
            "established",
            "1 min 15 s",
        ];
        let rest = [pid, command, container, "0", "4026532178", "75", "?"];
        [&flow[..], &rest].concat()
    };
    assert_eq!(lines[0].len(), lines[1].len());
    assert_eq!(lines[2], line("gone", "gone", "?", "?", "-"));
    assert_eq!(
        lines[1][..10],
        line("www_hello", "file/a", "4711", "", "")[..10]
    );
    let packets = [
        "192.0.2.9:40000",
        "198.18.12.7:80",
        "www_hello",
        "gone",
        "gone",
        "tcp",
        "packet: full",
        "established",
        "1 min 15 s",
        "-",
        "-",
        "-",
        "-",
        "-",
        "75",
        "3",
    ];
    assert_eq!(lines[3], packets);
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(
        text.ends_with("7 more flows are not listed\nsome flows may not be seen: no right\n"),
        "{text}"
    );
}

pub(super) fn container_list() -> Vec<Client> {
    let client = |name: &str, networks: &[&str], outside| Client {
        cookie: 4107,
        standing: Standing {
            container: "c0ffee".to_owned(),
            name: name.to_owned(),
            networks: networks.iter().map(|&it| it.to_owned()).collect(),
            addresses: [[172, 18, 0, 2].into()].into(),
            outside,
        },
    };
    vec![
        client("db", &["back"], false),
        client("web", &["back", "front"], true),
        client("lost\u{1b}", &[], false),
    ]
}

#[test]
fn clients_are_a_table() {
    let all = container_list();
    let expect = "\
CONTAINER   NETWORKS    ADDRESSES   REACHES                    COOKIE
db          back        172.18.0.2  its networks                 4107
web         back front  172.18.0.2  its networks and the host    4107
lost\\u{1b}              172.18.0.2  nothing                      4107
";
    assert_eq!(clients::rows(&all).text(false), expect);
}

pub(super) fn vip_list() -> Vec<Entry> {
    let entry = |last, service: Option<&str>, how, in_use, since, until| Entry {
        address: Ipv4Addr::new(198, 18, 0, last),
        service: service.map(str::to_owned),
        how,
        in_use,
        since_unix: since,
        until_unix: until,
    };
    vec![
        entry(2, Some("www_hello"), How::Hash, true, Some(940), None),
        entry(3, Some("db"), How::Quarantine, false, Some(880), Some(1480)),
        entry(4, None, How::Unreadable, false, None, None),
    ]
}

#[test]
fn vips_are_a_table() {
    let entries = vip_list();
    let expect = "\
ADDRESS     SERVICE    HOW         IN USE  AGE        LEFT
198.18.0.2  www_hello  hash        yes     1 min 0 s
198.18.0.3  db         quarantine  no      2 min 0 s  8 min 0 s
198.18.0.4  ?          unreadable  no      ?
";
    assert_eq!(vip::rows(&entries, 1000).text(false), expect);
}

#[test]
fn options_are_listed_without_an_agent() {
    let table = text(options::list(Output::Table));
    let line = table.lines().find(|line| line.starts_with("lb_local"));
    let line = line.unwrap();
    assert!(line.contains("any, prefer, only"), "{line}");
    assert!(
        !table.contains('`') && table.contains("lb_sticky"),
        "{table}"
    );
    let json: serde_json::Value = serde_json::from_str(&text(options::list(Output::Json))).unwrap();
    let sticky = json.as_array().unwrap().iter();
    let sticky: Vec<_> = sticky.filter(|it| it["name"] == "lb_sticky").collect();
    assert_eq!(sticky.len(), 1);
    assert_eq!(sticky[0]["since"], "0.1.0");
}
