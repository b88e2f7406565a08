use super::*;
use crate::{admin::packets::Protocol, packet::Glance};

pub(in crate::cli) fn traced() -> Traced {
    Traced {
        at_unix_milliseconds: 1_700_000_000_042,
        monotonic_nanoseconds: 7,
        device: "eth0".to_owned(),
        length: 74,
        fate: Some("full".to_owned()),
        dropped: false,
        glance: Glance {
            protocol: Some("tcp".to_owned()),
            source: "192.0.2.9".parse().ok(),
            source_port: Some(40_000),
            destination: "198.18.12.7".parse().ok(),
            destination_port: Some(80),
            flags: Some("S".to_owned()),
        },
        bytes: "00".to_owned(),
    }
}

pub(in crate::cli) fn way() -> Way {
    let all = Verdict {
        by: "table".to_owned(),
        backend: Some("file/a".to_owned()),
        address: "10.0.0.1:8080".parse().ok(),
        way: Some("tunnel".to_owned()),
        host: "192.0.2.8".parse().ok(),
        slot: Some(40_117),
        local_port: None,
        idle_seconds: None,
    };
    let local = Verdict {
        by: "no-endpoint".to_owned(),
        backend: None,
        address: None,
        way: None,
        host: None,
        slot: None,
        ..all.clone()
    };
    Way {
        client: "192.0.2.9:40000".parse().unwrap(),
        vip: "198.18.12.7:80".parse().unwrap(),
        protocol: Protocol::Tcp,
        service: Some("www_hello".to_owned()),
        unserved: None,
        all,
        local,
    }
}

#[test]
fn each_packet_is_a_line_below_the_head() {
    let dropped = Traced {
        fate: Some("no-port".to_owned()),
        dropped: true,
        glance: Glance::default(),
        ..traced()
    };
    let lines = [
        Line::Packet(traced().into()),
        Line::Lost { lost: 5 },
        Line::Packet(dropped.into()),
    ];
    let text: String = lines.iter().map(row).collect();
    let expect = "\
TIME          DEVICE           BYTES  PROTO     SOURCE                 DESTINATION            FLAGS  FATE
22:13:20.042  eth0                74  tcp       192.0.2.9:40000        198.18.12.7:80         S      full
5 packets are missing here: they came too fast
22:13:20.042  eth0                74  ?         ?                      ?                      -      dropped: no-port
";
    assert_eq!(HEAD.to_owned() + &text, expect);
    let csv: Vec<_> = lines.iter().map(csv).collect();
    let cells = |line: &str| line.trim_end().split(',').count();
    assert!(csv.iter().all(|it| cells(it) == CSV_HEAD.len()), "{csv:?}");
}

#[test]
fn packets_are_told_apart_by_their_ends_and_whether_they_were_dropped() {
    let is_wished = |client: Option<&str>, backend: Option<&str>, drops| {
        let watch = Watch {
            client: client.map(str::to_owned),
            backend: backend.map(str::to_owned),
            drops,
            ..Watch::default()
        };
        wished(&Line::Packet(traced().into()), &watch)
    };
    assert!(is_wished(None, None, false) && !is_wished(None, None, true));
    assert!(is_wished(Some("192.0.2.9"), Some("198.18.12.7:80"), false));
    assert!(!is_wished(Some("192.0.2.9:80"), None, false));
}

#[test]
fn where_a_packet_goes_is_said_with_why() {
    let text = print_way(&way(), Output::Table).unwrap();
    let expect = "\
packet    192.0.2.9:40000 to 198.18.12.7:80
service   www_hello
path      packets
next      file/a at 10.0.0.1:8080 by slot 40117 of 65537, no earlier packet, in a tunnel to 192.0.2.8
on card   of this host's backends: not balanced: left to the stack
";
    assert_eq!(text, expect);
    let flow = Verdict {
        by: "flow".to_owned(),
        way: Some("full".to_owned()),
        local_port: Some(61_000),
        idle_seconds: Some(3),
        ..way().all
    };
    let said = "file/a at 10.0.0.1:8080 as the packets before it (full, from port 61000); the last came 3 s ago";
    assert_eq!(verdict(&flow), said);
}
