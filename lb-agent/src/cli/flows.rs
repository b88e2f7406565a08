//! `flows`: who has one, and where it goes.

use std::{cmp::Reverse, collections::BTreeMap, net::SocketAddr, time::Duration};

use serde::Serialize;

use super::{
    Answer, CountBy, Exit, Failure, Output, PATIENCE, Wish,
    client::Client,
    progress::Progress,
    table::{Rows, figures, words},
};
use crate::admin::{
    report::{Flow, FlowList, PacketFlow},
    text::{self, visible},
};

/// The open flows that are wished for, or how many there are of each.
pub(super) async fn flows(client: &Client, output: Output, wish: &Wish) -> Answer {
    let service = wish.service.as_deref().or(wish.named.as_deref());
    let looking = Progress::start("looking for flows in every network namespace");
    let mut list = client.flows(service, PATIENCE).await?;
    drop(looking);
    list.flows.retain(|flow| wished(flow, wish));
    list.packets.retain(|flow| packets_wished(flow, wish));
    let text = match wish.count_by {
        None => print(&list, output)?,
        Some(by) => print_counts(&list, by, output)?,
    };
    Ok((text, Exit::Fine))
}

/// A line for each flow, then what is not among them.
pub(super) fn print(list: &FlowList, output: Output) -> Result<String, Failure> {
    Ok(rows(list).print(output, list)? + &left_out(list, output))
}

fn wished(flow: &Flow, wish: &Wish) -> bool {
    let client = wish.client.as_deref().is_none_or(|it| flow.is_of(it));
    let backend = wish
        .backend
        .as_deref()
        .is_none_or(|backend| is_backend(backend, flow.backend.as_deref(), Some(flow.address)));
    client && backend
}

fn packets_wished(flow: &PacketFlow, wish: &Wish) -> bool {
    let client = wish.client.as_deref().is_none_or(|it| flow.is_of(it));
    let backend = wish
        .backend
        .as_deref()
        .is_none_or(|backend| is_backend(backend, flow.backend.as_deref(), flow.address));
    client && backend
}

/// Whether `meant` is a backend's id, its `node/id`, or its address.
pub(super) fn is_backend(meant: &str, key: Option<&str>, address: Option<SocketAddr>) -> bool {
    let id = key.and_then(|key| key.split_once('/')).map(|(_, id)| id);
    key == Some(meant) || id == Some(meant) || address.is_some_and(|it| it.to_string() == meant)
}

/// So many flows have this in common.
#[derive(Serialize)]
struct Count {
    name: String,
    flows: usize,
}

fn print_counts(list: &FlowList, by: CountBy, output: Output) -> Result<String, Failure> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let known =
        |text: &Option<String>, unknown: &str| text.as_deref().unwrap_or(unknown).to_owned();
    for flow in &list.flows {
        let name = match by {
            CountBy::Backend => match &flow.backend {
                Some(backend) => format!("{backend} at {}", flow.address),
                None => format!("gone at {}", flow.address),
            },
            CountBy::Service => known(&flow.service, "gone"),
            CountBy::Client => flow.client.ip().to_string(),
            CountBy::Command => known(&flow.command, "?"),
        };
        *counts.entry(name).or_default() += 1;
    }
    for flow in &list.packets {
        let at = flow.address.map(|it| format!(" at {it}"));
        let name = match by {
            CountBy::Backend => known(&flow.backend, "gone") + &at.unwrap_or_default(),
            CountBy::Service => known(&flow.service, "gone"),
            CountBy::Client => flow.client.ip().to_string(),
            CountBy::Command => NO_PROCESS.to_owned(),
        };
        *counts.entry(name).or_default() += 1;
    }
    let counts = counts.into_iter();
    let mut counts: Vec<Count> = counts.map(|(name, flows)| Count { name, flows }).collect();
    counts.sort_by_key(|it| Reverse(it.flows));
    let head = match by {
        CountBy::Backend => "BACKEND",
        CountBy::Service => "SERVICE",
        CountBy::Client => "CLIENT",
        CountBy::Command => "COMMAND",
    };
    let mut rows = Rows::new([figures("FLOWS"), words(head)]);
    for Count { name, flows } in &counts {
        rows.push([flows.to_string(), name.clone()]);
    }
    Ok(rows.print(output, &counts)? + &left_out(list, output))
}

fn rows(list: &FlowList) -> Rows<16> {
    let mut rows = Rows::new([
        words("CLIENT"),
        words("VIP"),
        words("SERVICE"),
        words("BACKEND"),
        words("ADDRESS").wide(),
        words("PROTO"),
        words("PATH"),
        words("STATE"),
        words("AGE"),
        figures("PID"),
        words("COMMAND"),
        words("CONTAINER"),
        figures("UID").wide(),
        figures("NETNS").wide(),
        figures("SECONDS").wide(),
        figures("IDLE").wide(),
    ]);
    let known = |text: Option<&str>, unknown: &str| text.unwrap_or(unknown).to_owned();
    for flow in &list.flows {
        rows.push([
            flow.client.to_string(),
            flow.vip.to_string(),
            known(flow.service.as_deref(), "gone"),
            known(flow.backend.as_deref(), "gone"),
            flow.address.to_string(),
            flow.protocol.clone(),
            "socket".to_owned(),
            flow.state.clone(),
            text::duration(Duration::from_secs(flow.age_seconds)),
            flow.pid
                .map_or_else(|| "?".to_owned(), |pid| pid.to_string()),
            known(flow.command.as_deref(), "?"),
            known(flow.container.as_deref(), "-"),
            flow.uid.to_string(),
            flow.netns.to_string(),
            flow.age_seconds.to_string(),
            "?".to_owned(),
        ]);
    }
    for flow in &list.packets {
        let age = flow.age_seconds.map(Duration::from_secs);
        let path = flow.way.as_deref().unwrap_or("?");
        let seconds = flow.age_seconds.map(|age| age.to_string());
        rows.push([
            flow.client.to_string(),
            flow.vip.to_string(),
            known(flow.service.as_deref(), "gone"),
            known(flow.backend.as_deref(), "gone"),
            flow.address
                .map_or_else(|| "gone".to_owned(), |it| it.to_string()),
            flow.protocol.clone(),
            format!("packet: {path}"),
            flow.state.clone(),
            age.map_or_else(|| "?".to_owned(), text::duration),
            NO_PROCESS.to_owned(),
            NO_PROCESS.to_owned(),
            NO_PROCESS.to_owned(),
            NO_PROCESS.to_owned(),
            NO_PROCESS.to_owned(),
            seconds.unwrap_or_else(|| "?".to_owned()),
            flow.idle_seconds.to_string(),
        ]);
    }
    rows
}

/// A flow of packets has no socket on this host.
const NO_PROCESS: &str = "-";

/// What is not in the list; nothing if all is.
fn left_out(list: &FlowList, output: Output) -> String {
    let mut text = String::new();
    if !matches!(output, Output::Table | Output::Wide) {
        return text;
    }
    let left_out = list.left_out.saturating_add(list.packets_left_out);
    if left_out > 0 {
        text += &format!("{left_out} more flows are not listed\n");
    }
    if let Some(unseen) = &list.unseen {
        text += &format!("some flows may not be seen: {}\n", visible(unseen));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(client: &str, backend: Option<&str>, pid: u32) -> Flow {
        Flow {
            service: Some("web".to_owned()),
            vip: "198.18.12.7:80".parse().unwrap(),
            backend: backend.map(str::to_owned),
            address: "10.0.0.1:8080".parse().unwrap(),
            protocol: "tcp".to_owned(),
            state: "established".to_owned(),
            client: client.parse().unwrap(),
            age_seconds: 7,
            netns: 1,
            uid: 0,
            pid: Some(pid),
            command: Some("curl".to_owned()),
            container: Some("0123456789ab".to_owned()),
        }
    }

    #[test]
    fn flows_are_told_apart_by_client_and_backend() {
        let flow = flow("10.0.0.9:4000", Some("n1/a"), 17);
        let by = |client: Option<&str>, backend: Option<&str>| {
            let wish = Wish {
                client: client.map(str::to_owned),
                backend: backend.map(str::to_owned),
                ..Wish::default()
            };
            wished(&flow, &wish)
        };
        assert!(by(None, None));
        for client in [
            "10.0.0.9",
            "10.0.0.9:4000",
            "17",
            "curl",
            "0123",
            "0123456789abcdef",
        ] {
            assert!(by(Some(client), None), "{client}");
            assert!(!by(Some(client), Some("b")), "{client}");
        }
        for client in ["10.0.0.8", "1", "cur", "012", "123456789ab", ""] {
            assert!(!by(Some(client), None), "{client}");
        }
        for backend in ["n1/a", "a", "10.0.0.1:8080"] {
            assert!(by(None, Some(backend)), "{backend}");
        }
        assert!(!by(None, Some("n1")));
    }

    #[test]
    fn flows_are_counted_the_most_first() {
        let list = FlowList {
            flows: vec![
                flow("10.0.0.9:4000", Some("n1/a"), 17),
                flow("10.0.0.8:4000", None, 18),
                flow("10.0.0.8:4001", Some("n1/a"), 18),
            ],
            left_out: 2,
            packets: Vec::new(),
            packets_left_out: 0,
            unseen: None,
        };
        let print = |by, output| print_counts(&list, by, output).unwrap();
        let expect = "\
FLOWS  BACKEND
    2  n1/a at 10.0.0.1:8080
    1  gone at 10.0.0.1:8080
2 more flows are not listed
";
        assert_eq!(print(CountBy::Backend, Output::Table), expect);
        let expect = "FLOWS,CLIENT\r\n2,10.0.0.8\r\n1,10.0.0.9\r\n";
        assert_eq!(print(CountBy::Client, Output::Csv), expect);
        let json: serde_json::Value =
            serde_json::from_str(&print(CountBy::Command, Output::Json)).unwrap();
        assert_eq!(json, serde_json::json!([{"name": "curl", "flows": 3}]));
    }
}
