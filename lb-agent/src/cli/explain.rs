//! `explain`: what a connect would do, and why.

use lb_common::{HOST_VIEW, INTERNAL_VIEW, OUTSIDE_VIEW};

use super::{
    Answer, Exit, Failure, Output, PATIENCE,
    client::Client,
    json,
    table::{Rows, figures, words},
};
use crate::{
    admin::{
        explain::{Told, Who},
        text::{self, visible},
    },
    desired::{Explained, Way},
};

/// What a connect of `who` to `service` would do.
pub(super) async fn explain(client: &Client, output: Output, who: &str, service: &str) -> Answer {
    let told = client.explain(who, service, PATIENCE).await?;
    Ok((print(&told, output)?, Exit::Fine))
}

pub(super) fn print(told: &Told, output: Output) -> Result<String, Failure> {
    match output {
        Output::Table | Output::Wide => Ok(table_of(told)),
        Output::Csv => Ok(backends(&told.explanation.backends).csv()),
        Output::Json => json(told),
    }
}

/// Who asks for what, what comes of it, and a line for each backend.
fn table_of(told: &Told) -> String {
    let mut lines = vec![
        ("client", client(&told.client)),
        ("service", service(told)),
        ("view", view(told)),
    ];
    if let Some(rule) = &told.explanation.denied {
        lines.push(("denied", format!("by {}", visible(rule))));
    }
    for way in &told.explanation.ways {
        lines.push(("next", next(way)));
    }
    if told.affinity_seconds > 0 {
        let detail = format!(
            "a client keeps its backend for {} s after its last flow",
            told.affinity_seconds
        );
        lines.push(("affinity", detail));
        for kept in &told.kept {
            let detail = format!(
                "{} by {}, its last flow began {} s ago",
                kept.address, kept.proto, kept.seconds_ago
            );
            lines.push(("kept at", detail));
        }
    }
    if !told.complete {
        let detail = "not every source has answered: the kernel may still serve more than this";
        lines.push(("note", detail.to_owned()));
    }
    let mut text: String = lines
        .into_iter()
        .map(|(name, detail)| format!("{name:8}  {}\n", visible(&detail)))
        .collect();
    text.push('\n');
    text.push_str(&backends(&told.explanation.backends).text(true));
    text
}

fn client(who: &Who) -> String {
    let mut text = match who.pid {
        Some(pid) => format!("process {pid}, "),
        None => String::new(),
    };
    match (&who.standing, who.cookie) {
        (Some(standing), cookie) => {
            let list = |items: Vec<String>| match items.is_empty() {
                true => "none".to_owned(),
                false => visible(&items.join(" ")).into_owned(),
            };
            let networks = standing.networks.iter().cloned().collect();
            let addresses = who.addresses().map(ToString::to_string).collect();
            text.push_str(&format!(
                "container {}; networks {}, addresses {}",
                visible(&standing.name),
                list(networks),
                list(addresses)
            ));
            if let Some(cookie) = cookie {
                text.push_str(&format!(", namespace cookie {cookie}"));
            }
        }
        (None, None) => text.push_str("the host's network namespace"),
        (None, Some(cookie)) => text.push_str(&format!(
            "the network namespace with the cookie {cookie}, which is of no known container: it is treated as the host"
        )),
    }
    text
}

fn service(told: &Told) -> String {
    let twin = told.vip6.map(|twin| format!(" and {twin}"));
    let ports: Vec<_> = told.ports.iter().map(u16::to_string).collect();
    let ports = match ports.is_empty() {
        true => "any".to_owned(),
        false => ports.join(","),
    };
    format!(
        "{}, VIP {}{}, ports {ports}, {}",
        visible(&told.service),
        told.vip,
        twin.unwrap_or_default(),
        told.balance
    )
}

fn view(told: &Told) -> String {
    let decides = match told.explanation.view {
        HOST_VIEW => "that of the host decides".to_owned(),
        OUTSIDE_VIEW => {
            "that of clients decides that share no network with the service, but reach others"
                .to_owned()
        }
        INTERNAL_VIEW => {
            "that of clients decides that reach nothing but their own networks".to_owned()
        }
        own => format!("its own, {own}, decides"),
    };
    match told.client.view {
        Some(own) if own != told.explanation.view => format!("{decides}; its own is {own}"),
        _ => decides,
    }
}

fn next(way: &Way) -> String {
    let sockets = match way.sockets.as_str() {
        "ipv4" => "an IPv4 socket: ",
        "ipv6" => "an IPv6 socket: ",
        _ => "",
    };
    let choices = text::count(way.choices, "backend");
    match (&way.refused, way.leads_to) {
        (Some(reason), _) => format!("{sockets}refused: {}", visible(reason)),
        (None, Some(address)) => {
            format!("{sockets}{address}, where the client's hash leads, one of {choices}")
        }
        (None, None) => format!("{sockets}one of {choices}"),
    }
}

fn backends(backends: &[Explained]) -> Rows<6> {
    let mut rows = Rows::new([
        words("ID"),
        words("NODE"),
        words("ADDRESS"),
        words("BY"),
        figures("SHARE"),
        words("VERDICT"),
    ]);
    for backend in backends {
        let mut verdict = backend.verdict.clone();
        if backend.suspect {
            verdict.push_str(", suspect: a connect failed; skipped while another is not");
        }
        let permille = backend.share_permille;
        rows.push([
            backend.key.id.to_string(),
            backend.key.node.to_string(),
            backend
                .address
                .map_or_else(|| "none".to_owned(), |address| address.to_string()),
            backend.by.map_or("", |by| by.as_str()).to_owned(),
            format!("{}.{} %", permille / 10, permille % 10),
            verdict,
        ]);
    }
    rows
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::{
        catalog::InstanceKey,
        clients::Standing,
        desired::{By, Explanation},
        stats::Kept,
    };

    pub(in crate::cli) fn told() -> Told {
        let backend = |id: &str, address: Option<&str>, by, share, verdict: &str| Explained {
            key: InstanceKey::new("file", id),
            address: address.map(|it| it.parse().unwrap()),
            by,
            share_permille: share,
            verdict: verdict.to_owned(),
            suspect: id == "b",
        };
        let published = Some(By::Published);
        Told {
            client: Who {
                pid: Some(4711),
                cookie: Some(4107),
                standing: Some(Standing {
                    container: "c0ffee".to_owned(),
                    name: "web".to_owned(),
                    networks: ["back".to_owned(), "front".to_owned()].into(),
                    addresses: [[172, 18, 0, 2].into()].into(),
                    outside: true,
                }),
                view: Some(70),
                ranges: Default::default(),
            },
            service: "www_hello".to_owned(),
            vip: [198, 18, 12, 7].into(),
            vip6: None,
            ports: [80].into(),
            balance: "least-conn".to_owned(),
            affinity_seconds: 60,
            kept: vec![Kept {
                proto: "tcp".to_owned(),
                address: ([10, 0, 0, 1], 8080).into(),
                seconds_ago: 7,
            }],
            complete: true,
            explanation: Explanation {
                view: OUTSIDE_VIEW,
                denied: None,
                ways: vec![Way {
                    sockets: "every".to_owned(),
                    refused: None,
                    choices: 1,
                    leads_to: None,
                }],
                backends: vec![
                    backend("a", Some("10.0.0.1:8080"), published, 333, "given"),
                    backend("b", Some("10.0.0.1:8081"), published, 666, "given"),
                    backend("c", None, None, 0, "no-path"),
                ],
            },
        }
    }

    #[test]
    fn who_what_how_and_each_backend_are_told() {
        let expect = "\
client    process 4711, container web; networks back front, addresses 172.18.0.2, namespace cookie 4107
service   www_hello, VIP 198.18.12.7, ports 80, least-conn
view      that of clients decides that share no network with the service, but reach others; its own is 70
next      one of 1 backend
affinity  a client keeps its backend for 60 s after its last flow
kept at   10.0.0.1:8080 by tcp, its last flow began 7 s ago

ID  NODE  ADDRESS        BY          SHARE  VERDICT
a   file  10.0.0.1:8080  published  33.3 %  given
b   file  10.0.0.1:8081  published  66.6 %  given, suspect: a connect failed; skipped while another is not
c   file  none                       0.0 %  no-path
";
        assert_eq!(table_of(&told()), expect);
    }

    #[test]
    fn where_a_hash_leads_is_told() {
        let mut told = told();
        told.explanation.ways[0].leads_to = Some(([10, 0, 0, 1], 8080).into());
        let line = "next      10.0.0.1:8080, where the client's hash leads, one of 1 backend\n";
        assert!(table_of(&told).contains(line), "{}", table_of(&told));
    }

    #[test]
    fn a_refusal_is_told_with_its_rule_and_a_stranger_as_what_it_is() {
        let mut told = told();
        told.client.standing = None;
        told.explanation.view = HOST_VIEW;
        told.explanation.denied = Some("lb_deny=host".to_owned());
        told.explanation.ways[0].refused = Some("denied".to_owned());
        let text = table_of(&told);
        assert!(text.contains("which is of no known container"), "{text}");
        assert!(
            text.contains("denied    by lb_deny=host\nnext      refused: denied\n"),
            "{text}"
        );
    }
}
