//! The packet path: `trace --packets`, `explain` of an address, `flows --flush`.

use std::{
    fs::File,
    io::BufWriter,
    net::{IpAddr, SocketAddr},
};

use lb_packet::Pcap;

use super::{
    Answer, Exit, Failure, Output, PATIENCE, Watch, Wish,
    client::Client,
    follow::{self, Form},
    json,
    table::csv_line,
    trace::time,
};
use crate::admin::{
    packets::{FlushOrder, Line, Traced, Verdict, Way},
    text::visible,
};

/// Prints packets as they come, and writes them to a file if one is named.
pub(super) async fn follow(
    client: &Client,
    watch: &Watch,
    output: Output,
    out: &mut dyn std::io::Write,
) -> Answer {
    let file = watch.pcap.as_deref().map(|path| {
        let begun = File::create(path).and_then(|file| Pcap::begin(BufWriter::new(file)));
        begun.map_err(|source| Failure::File {
            path: path.to_owned(),
            source,
        })
    });
    let mut file = file.transpose()?;
    let sample = watch.sample.unwrap_or(u32::from(watch.service.is_none()));
    let lines = client
        .packets(watch.service.as_deref(), sample, PATIENCE)
        .await?;
    let wished = |said: &Line| {
        let is_wished = wished(said, watch);
        if let (true, Some(file), Line::Packet(traced)) = (is_wished, &mut file, said)
            && let Some(packet) = traced.packet()
        {
            file.add(&packet).map_err(Failure::Print)?;
        }
        Ok(is_wished)
    };
    let exit = follow::lines(lines, &FORM, watch, output, out, wished).await?;
    if let Some(file) = file {
        file.finish().map_err(Failure::Print)?;
    }
    Ok((String::new(), exit))
}

/// What is missing is told to everybody: it may have been theirs.
fn wished(line: &Line, watch: &Watch) -> bool {
    let Line::Packet(it) = line else {
        return true;
    };
    let glance = &it.glance;
    let ends = [
        (glance.source, glance.source_port),
        (glance.destination, glance.destination_port),
    ];
    let is_of = |meant: &str| {
        ends.into_iter().any(|(ip, port)| {
            let Some(ip) = ip else { return false };
            let whole = port.map(|port| SocketAddr::new(ip, port).to_string());
            ip.to_string() == meant || whole.as_deref() == Some(meant)
        })
    };
    let means = |meant: &Option<String>| meant.as_deref().is_none_or(is_of);
    means(&watch.client) && means(&watch.backend) && (it.dropped || !watch.drops)
}

/// A line for each packet.
pub(super) const FORM: Form<Line> = Form {
    head: HEAD,
    csv_head: &CSV_HEAD,
    row,
    csv,
    counts: |line| matches!(line, Line::Packet(_)),
};

const HEAD: &str = "TIME          DEVICE           BYTES  PROTO     SOURCE                 DESTINATION            FLAGS  FATE\n";

const CSV_HEAD: [&str; 10] = [
    "TIME",
    "DEVICE",
    "BYTES",
    "PROTO",
    "SOURCE",
    "DESTINATION",
    "FLAGS",
    "FATE",
    "DROPPED",
    "LOST",
];

/// The cells of a packet.
fn cells(it: &Traced) -> [String; 8] {
    let end = |ip: Option<IpAddr>, port: Option<u16>| match (ip, port) {
        (Some(ip), Some(port)) => SocketAddr::new(ip, port).to_string(),
        (Some(ip), None) => ip.to_string(),
        (None, _) => "?".to_owned(),
    };
    let glance = &it.glance;
    let known =
        |text: &Option<String>, unknown: &str| text.as_deref().unwrap_or(unknown).to_owned();
    [
        time(it.at_unix_milliseconds),
        it.device.clone(),
        it.length.to_string(),
        known(&glance.protocol, "?"),
        end(glance.source, glance.source_port),
        end(glance.destination, glance.destination_port),
        known(&glance.flags, "-"),
        known(&it.fate, "?"),
    ]
}

fn row(line: &Line) -> String {
    let traced = match line {
        Line::Lost { lost } => {
            return format!("{lost} packets are missing here: they came too fast\n");
        }
        Line::Packet(traced) => traced,
    };
    let [
        time,
        device,
        length,
        protocol,
        source,
        destination,
        flags,
        fate,
    ] = cells(traced).map(|it| visible(&it).into_owned());
    let dropped = if traced.dropped { "dropped: " } else { "" };
    format!(
        "{time:12}  {device:15}  {length:>5}  {protocol:8}  {source:21}  {destination:21}  {flags:5}  {dropped}{fate}\n"
    )
}

fn csv(line: &Line) -> String {
    let mut all: Vec<String> = match line {
        Line::Lost { .. } => vec![String::new(); CSV_HEAD.len() - 1],
        Line::Packet(traced) => {
            let mut all = cells(traced).to_vec();
            all.push(traced.dropped.to_string());
            all
        }
    };
    all.push(match line {
        Line::Lost { lost } => lost.to_string(),
        Line::Packet(_) => String::new(),
    });
    csv_line(all.iter().map(String::as_str))
}

/// Where a packet of `client` to `vip` would go.
pub(super) async fn explain(
    client: &Client,
    output: Output,
    (from, vip): (&str, &str),
    udp: bool,
) -> Answer {
    let _: Option<SocketAddr> = address(Some(vip), "a VIP for packets", "198.18.0.9:80")?;
    let protocol = if udp { "udp" } else { "tcp" };
    let way = client.packet((from, vip), protocol, PATIENCE).await?;
    Ok((print_way(&way, output)?, Exit::Fine))
}

pub(super) fn print_way(way: &Way, output: Output) -> Result<String, Failure> {
    let lines = vec![
        ("packet", format!("{} to {}", way.client, way.vip)),
        (
            "service",
            way.service
                .as_deref()
                .map_or("nobody has the VIP".to_owned(), |it| {
                    visible(it).into_owned()
                }),
        ),
        ("path", "packets".to_owned()),
        ("next", verdict(&way.all)),
        (
            "on card",
            format!("of this host's backends: {}", verdict(&way.local)),
        ),
    ];
    Ok(match output {
        Output::Json => json(way)?,
        Output::Csv => {
            let cells = lines.iter().map(|(_, text)| text.as_str());
            csv_line(["PACKET", "SERVICE", "PATH", "NEXT", "ON CARD"].into_iter())
                + &csv_line(cells)
        }
        Output::Table | Output::Wide => {
            let unserved = way.unserved.as_deref();
            let unserved = unserved.map(|why| ("refused", visible(why).into_owned()));
            let all = lines.into_iter().chain(unserved);
            all.map(|(name, text)| format!("{name:8}  {text}\n"))
                .collect()
        }
    })
}

fn verdict(verdict: &Verdict) -> String {
    let backend = || {
        let name = verdict.backend.as_deref();
        let name = name.map(|it| visible(it).into_owned());
        let address = verdict.address.map(|it| format!("at {it}"));
        let all: Vec<_> = name.into_iter().chain(address).collect();
        all.join(" ")
    };
    match verdict.by.as_str() {
        "flow" => {
            let way = verdict.way.as_deref().unwrap_or("?");
            let port = verdict.local_port.unwrap_or(0);
            let idle = verdict.idle_seconds.unwrap_or(0);
            format!(
                "{} as the packets before it ({}, from port {port}); the last came {idle} s ago",
                backend(),
                visible(way)
            )
        }
        "table" => {
            let slot = verdict.slot.unwrap_or(0);
            let tunnel = match (verdict.way.as_deref(), verdict.host) {
                (Some("tunnel"), Some(host)) => format!(", in a tunnel to {host}"),
                (Some("tunnel"), None) => ", in a tunnel to a host that is not known".to_owned(),
                _ => String::new(),
            };
            format!(
                "{} by slot {slot} of 65537, no earlier packet{tunnel}",
                backend()
            )
        }
        "gone" if verdict.address.is_some() => format!(
            "the backend of its flow is gone: TCP is reset; a new flow goes to {}",
            backend()
        ),
        "gone" => "the backend of its flow is gone, and no other is usable".to_owned(),
        "no-backend" => "no backend is usable: TCP is reset".to_owned(),
        "no-endpoint" => "not balanced: left to the stack".to_owned(),
        other => visible(other).into_owned(),
    }
}

/// Forgets the flows of the packet path that are wished for.
pub(super) async fn flush(client: &Client, output: Output, wish: &Wish) -> Answer {
    let service = wish.service.as_ref().or(wish.named.as_ref()).cloned();
    let order = FlushOrder {
        service,
        client: address(wish.client.as_deref(), "--client", "192.0.2.9")?,
        backend: address(wish.backend.as_deref(), "--backend", "10.0.0.1:8080")?,
    };
    let flushed = client.flush(&order, PATIENCE).await?;
    let text = match output {
        Output::Json => json(&flushed)?,
        Output::Csv => {
            csv_line(["FORGOTTEN"].into_iter())
                + &csv_line([flushed.forgotten.to_string().as_str()].into_iter())
        }
        Output::Table | Output::Wide => format!("{} flows are forgotten\n", flushed.forgotten),
    };
    Ok((text, Exit::Fine))
}

fn address<A: std::str::FromStr>(
    text: Option<&str>,
    what: &'static str,
    example: &'static str,
) -> Result<Option<A>, Failure> {
    let read = text.map(|text| text.parse().map_err(|_| Failure::Address { what, example }));
    read.transpose()
}

#[cfg(test)]
pub(super) mod tests;
