//! The packet path: flows that are forgotten, where a packet would go, and packets as they come.

use std::{
    convert::Infallible,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension, Json,
    body::{Body, Bytes},
    extract::{Query, State, rejection::JsonRejection, rejection::QueryRejection},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use lb_common::{PROTO_TCP, PROTO_UDP};
use serde::{Deserialize, Serialize};

use super::{
    action::{Failed, nothing_known, refused, refused_from_afar, to_the_end},
    audit::{self, Deed},
    explain::meant,
    flows::vips_of,
    guard::{Access, Actor},
    router::Desk,
};
use crate::{
    packet::{self, Explained, Glance, Told},
    snapshot::Snapshot,
    vip::Pools,
};

/// Where flows of the packet path are forgotten.
pub(crate) const FLUSH_PATH: &str = "/api/v1/packet/flush";
/// Where it is told where a packet would go.
pub(crate) const PACKET_EXPLAIN_PATH: &str = "/api/v1/packet/explain";
/// Where packets are told as they come.
pub(crate) const PACKET_TRACE_PATH: &str = "/api/v1/packet/trace";

/// The body of `POST /api/v1/packet/flush`: the flows that all of it fits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(crate) struct FlushOrder {
    /// Only those of this service and its parts.
    #[serde(default)]
    pub(crate) service: Option<String>,
    /// Only those of the client with this address.
    #[serde(default)]
    pub(crate) client: Option<IpAddr>,
    /// Only those to this backend.
    #[serde(default)]
    pub(crate) backend: Option<SocketAddr>,
}

/// The answer to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Flushed {
    /// How many flows were forgotten.
    pub(crate) forgotten: u64,
}

/// `POST /api/v1/packet/flush`.
pub(super) async fn flush(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    order: Result<Json<FlushOrder>, JsonRejection>,
) -> Response {
    match order {
        Ok(Json(order)) => to_the_end(forget(desk, access, order)).await,
        Err(rejection) => refused(rejection.status(), rejection.body_text()),
    }
}

async fn forget(desk: Desk, access: Access, order: FlushOrder) -> Response {
    let Some(path) = desk.packet.clone() else {
        return no_path();
    };
    if let Some(why) = path.seen.borrow().error.clone() {
        return refused(StatusCode::CONFLICT, why);
    }
    let Some(snapshot) = desk.snapshots.borrow().clone() else {
        return nothing_known();
    };
    let vips = match order.service.as_deref() {
        None => None,
        Some(name) => match vips_of(&snapshot, name) {
            Some(vips) => Some(vips),
            None => return no_service(name),
        },
    };
    let meant = packet::Meant {
        vips,
        filter: lb_packet::Filter {
            client: order.client,
            backend: order.backend,
            ..lb_packet::Filter::default()
        },
    };
    let outcome = match path.flush(meant).await {
        None => Err(Failed::Silent),
        Some(answer) => answer.map_err(Failed::Refused),
    };
    let of = [
        order.service.map(|it| format!(" of {it}")),
        order.client.map(|it| format!(" from {it}")),
        order.backend.map(|it| format!(" to {it}")),
    ];
    let of: String = of.into_iter().flatten().collect();
    let deed = Deed {
        action: "packet_flush",
        object: format!("flows on the packet path{of}"),
        before: None,
    };
    let after = outcome.as_ref();
    let after = after.map(|forgotten| format!("{forgotten} forgotten"));
    audit::keep(&desk, &access, deed, after);
    match outcome {
        Ok(forgotten) => Json(Flushed { forgotten }).into_response(),
        Err(failed) => failed.answer(),
    }
}

/// What is asked about a packet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// Its source: address and port.
    client: SocketAddr,
    /// The VIP and port.
    vip: SocketAddr,
    /// `tcp` or `udp`.
    #[serde(default)]
    protocol: Protocol,
}

/// Of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// Where a packet would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Way {
    /// Its source.
    pub(crate) client: SocketAddr,
    /// What it is for.
    pub(crate) vip: SocketAddr,
    /// Its protocol.
    pub(crate) protocol: Protocol,
    /// The service; `null` if nobody has the VIP.
    pub(crate) service: Option<String>,
    /// Why the packet path does not serve it; `null` if it does.
    pub(crate) unserved: Option<String>,
    /// From a client's device, or by XDP at a card.
    pub(crate) all: Verdict,
    /// At a card behind XDP, where only backends of this host are.
    pub(crate) local: Verdict,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Verdict {
    /// `flow`: as the packets before it; `table`: a new flow, by the hash; `gone`: the backend of its flow is gone; `no-backend`; `no-endpoint`.
    pub(crate) by: String,
    /// The backend as `node/id`; `null` if there is none, or none that is known.
    pub(crate) backend: Option<String>,
    /// Where it would go.
    pub(crate) address: Option<SocketAddr>,
    /// How: `destination`, `full`, `tunnel`, `hairpin`; `null` where that is not settled yet.
    pub(crate) way: Option<String>,
    /// The host that a tunnel would lead to.
    pub(crate) host: Option<IpAddr>,
    /// The slot of the table.
    pub(crate) slot: Option<u32>,
    /// The client's port as the backend sees it.
    pub(crate) local_port: Option<u16>,
    /// Since the last packet of the flow.
    pub(crate) idle_seconds: Option<u32>,
}

/// `GET /api/v1/packet/explain`.
pub(super) async fn explain(
    State(desk): State<Desk>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Response {
    let wish = match wish {
        Ok(Query(wish)) => wish,
        Err(rejection) => return refused(rejection.status(), rejection.body_text()),
    };
    let Some(path) = desk.packet.clone() else {
        return no_path();
    };
    if let Some(why) = path.seen.borrow().error.clone() {
        return refused(StatusCode::CONFLICT, why);
    }
    let Some(snapshot) = desk.snapshots.borrow().clone() else {
        return nothing_known();
    };
    if wish.client.is_ipv4() != wish.vip.is_ipv4() {
        let why = format!("{} and {} are of two families", wish.client, wish.vip);
        return refused(StatusCode::UNPROCESSABLE_ENTITY, why);
    }
    let known = meant(&snapshot, desk.pools, &wish.vip.to_string());
    let vip = known.and_then(|(_, service)| service.vip);
    let vip = vip.or_else(|| v4_of(wish.vip.ip()));
    let Some(vip) = vip else {
        let why = format!("nobody has the address {}", wish.vip.ip());
        return refused(StatusCode::NOT_FOUND, why);
    };
    let question = lb_packet::Question {
        proto: match wish.protocol {
            Protocol::Tcp => PROTO_TCP,
            Protocol::Udp => PROTO_UDP,
        },
        client: wish.client,
        vip,
        vip_port: wish.vip.port(),
        local: false,
    };
    match path.explain(question).await {
        None => Failed::Silent.answer(),
        Some(Err(why)) => refused(StatusCode::SERVICE_UNAVAILABLE, why),
        Some(Ok(explained)) => Json(told(&wish, &explained, &snapshot, desk.pools)).into_response(),
    }
}

fn v4_of(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn told(wish: &Wish, explained: &Explained, snapshot: &Snapshot, pools: Pools) -> Way {
    let known = meant(snapshot, pools, &wish.vip.to_string());
    let name = |address: SocketAddr| {
        let mut backends = known?.1.backends.iter();
        let found = backends.find(|(_, backend)| backend.addresses().any(|it| it == address));
        found.map(|(key, _)| key.to_string())
    };
    let verdict = |answer: &lb_packet::Answer| {
        let mut verdict = Verdict {
            by: String::new(),
            backend: None,
            address: None,
            way: None,
            host: None,
            slot: None,
            local_port: None,
            idle_seconds: None,
        };
        let by = match answer {
            lb_packet::Answer::Flow {
                backend,
                way,
                local_port,
                idle_seconds,
            } => {
                verdict.address = Some(*backend);
                verdict.way = way.map(|way| packet::way(way).to_owned());
                verdict.local_port = Some(*local_port);
                verdict.idle_seconds = Some(*idle_seconds);
                "flow"
            }
            lb_packet::Answer::Gone { otherwise, .. } => {
                verdict.address = *otherwise;
                "gone"
            }
            lb_packet::Answer::Table {
                backend,
                host,
                local,
                slot,
                tunnel,
                ..
            } => {
                verdict.address = Some(*backend);
                verdict.host = *host;
                verdict.slot = Some(*slot);
                verdict.way = (!local && *tunnel).then(|| "tunnel".to_owned());
                "table"
            }
            lb_packet::Answer::NoBackend { .. } => "no-backend",
            lb_packet::Answer::NoEndpoint => "no-endpoint",
        };
        verdict.by = by.to_owned();
        verdict.backend = verdict.address.and_then(name);
        verdict
    };
    Way {
        client: wish.client,
        vip: wish.vip,
        protocol: wish.protocol,
        service: known.map(|(name, _)| name.to_string()),
        unserved: known
            .and_then(|(_, service)| packet::not_served(service))
            .map(str::to_owned),
        all: verdict(&explained.all),
        local: verdict(&explained.local),
    }
}

/// What packets are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Watch {
    /// All of this service.
    service: Option<String>,
    /// One of so many.
    #[serde(default)]
    sample: u32,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub(crate) enum Line {
    /// So many packets are missing here.
    Lost {
        /// How many.
        lost: u64,
    },
    /// A packet.
    Packet(Box<Traced>),
}

/// A packet that was sampled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Traced {
    /// When, in milliseconds since 1970.
    pub(crate) at_unix_milliseconds: u64,
    /// The same in nanoseconds of the host's monotonic clock.
    pub(crate) monotonic_nanoseconds: u64,
    /// The device that it came by, or leaves by; its number if that is all that is known.
    pub(crate) device: String,
    /// Its length with the link's head.
    pub(crate) length: u32,
    /// What became of it; `null` if the programs know a fate that this agent does not.
    pub(crate) fate: Option<String>,
    /// Whether it was dropped.
    pub(crate) dropped: bool,
    /// What it is, as far as its first bytes say.
    #[serde(flatten)]
    pub(crate) glance: Glance,
    /// Its first bytes, in hexadecimal digits.
    pub(crate) bytes: String,
}

/// `GET /api/v1/packet/trace`, on the socket only: packets say who talks with whom, and what.
pub(super) async fn trace(
    State(desk): State<Desk>,
    Extension(actor): Extension<Actor>,
    watch: Result<Query<Watch>, QueryRejection>,
) -> Response {
    let why = "packets say who talks with whom: run `lb-agent trace --packets` on this host";
    if let Some(refusal) = refused_from_afar(&actor, why) {
        return refusal;
    }
    let watch = match watch {
        Ok(Query(watch)) => watch,
        Err(rejection) => return refused(rejection.status(), rejection.body_text()),
    };
    let Some(path) = desk.packet.clone() else {
        return no_path();
    };
    if let Some(why) = path.seen.borrow().error.clone() {
        return refused(StatusCode::CONFLICT, why);
    }
    let service = match watch.service.as_deref() {
        None => None,
        Some(name) => {
            let Some(snapshot) = desk.snapshots.borrow().clone() else {
                return nothing_known();
            };
            let Some((name, _)) = meant(&snapshot, desk.pools, name) else {
                return no_service(name);
            };
            Some(name.clone())
        }
    };
    // Without a word all of them are meant.
    let sample = match (watch.sample, &service) {
        (0, None) => 1,
        (sample, _) => sample,
    };
    let trace = packet::Trace { service, sample };
    let Some(hears) = path.trace(trace).await else {
        return Failed::Silent.answer();
    };
    // Whoever goes away drops this, and with it the receiver: that is how the stage knows.
    let lines = stream::unfold(hears, |mut hears| async move {
        let line = bytes(&line(hears.recv().await?));
        Some((Ok::<_, Infallible>(line), hears))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(lines)).into_response()
}

fn line(told: Told) -> Line {
    let (packet, device) = match told {
        Told::Lost(lost) => return Line::Lost { lost },
        Told::Packet(packet, device) => (packet, device),
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let (now, monotonic) = (now.unwrap_or_default(), packet::monotonic());
    let at = now.saturating_sub(monotonic.saturating_sub(packet.time));
    let number = |time: u128| u64::try_from(time).unwrap_or(u64::MAX);
    Line::Packet(Box::new(Traced {
        at_unix_milliseconds: number(at.as_millis()),
        monotonic_nanoseconds: number(packet.time.as_nanos()),
        device: device.map_or_else(|| packet.device.to_string(), |it: Arc<str>| it.to_string()),
        length: packet.length,
        fate: packet.fate.map(|it| it.as_str().to_owned()),
        dropped: packet.fate.is_some_and(lb_common::packet::Fate::drops),
        glance: Glance::at(&packet.bytes),
        bytes: packet.bytes.iter().map(|it| format!("{it:02x}")).collect(),
    }))
}

impl Traced {
    /// The packet again, for a file; `None` if its bytes are no hexadecimal digits.
    pub(crate) fn packet(&self) -> Option<lb_packet::Packet> {
        let digits = self.bytes.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> = digits
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        Some(lb_packet::Packet {
            time: Duration::from_nanos(self.monotonic_nanoseconds),
            device: 0,
            length: self.length,
            fate: None,
            bytes: bytes?,
        })
    }
}

fn bytes(line: &Line) -> Bytes {
    // Numbers and texts: there is nothing that JSON has no form for.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text.into()
}

fn no_service(name: &str) -> Response {
    let why = format!("there is no service {name:?}: see `lb-agent services`");
    refused(StatusCode::NOT_FOUND, why)
}

fn no_path() -> Response {
    let why =
        "this agent has no packet path: [packet] or --packet-card and --packet-client switch it on";
    refused(StatusCode::CONFLICT, why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::sample;

    #[test]
    fn a_packet_is_explained_by_its_flow_or_by_the_table() {
        let at = |text: &str| -> SocketAddr { text.parse().unwrap() };
        let wish = Wish {
            client: at("192.0.2.9:4000"),
            vip: at("198.18.12.7:80"),
            protocol: Protocol::Tcp,
        };
        let flow = lb_packet::Answer::Flow {
            backend: at("10.0.0.1:80"),
            way: Some(lb_common::packet::Way::Full),
            local_port: 61_000,
            idle_seconds: 3,
        };
        let explained = Explained {
            all: flow,
            local: lb_packet::Answer::NoEndpoint,
        };
        let told = told(&wish, &explained, &sample::snapshot(), Pools::default());
        assert_eq!(told.service.as_deref(), Some("www_hello"));
        assert_eq!(told.unserved, None);
        assert_eq!(told.all.by, "flow");
        assert_eq!(told.all.backend.as_deref(), Some("file/a"));
        assert_eq!(told.all.way.as_deref(), Some("full"));
        assert_eq!(told.all.local_port, Some(61_000));
        assert_eq!((&*told.local.by, told.local.address), ("no-endpoint", None));
    }

    #[test]
    fn a_packet_that_was_told_can_be_written_to_a_file() {
        let packet = lb_packet::Packet {
            time: Duration::from_nanos(1_500),
            device: 7,
            length: 90,
            fate: Some(lb_common::packet::Fate::NoPort),
            bytes: vec![0, 1, 0xfe],
        };
        let Line::Packet(traced) = line(Told::Packet(packet.clone(), None)) else {
            panic!("no packet");
        };
        assert_eq!((&*traced.device, &*traced.bytes), ("7", "0001fe"));
        assert_eq!(traced.fate.as_deref(), Some("no-port"));
        assert!(traced.dropped);
        let again = traced.packet().unwrap();
        assert_eq!((again.time, again.length), (packet.time, 90));
        assert_eq!(again.bytes, packet.bytes);
        let broken = Traced {
            bytes: "0g".to_owned(),
            ..*traced
        };
        assert_eq!(broken.packet(), None);
    }
}
