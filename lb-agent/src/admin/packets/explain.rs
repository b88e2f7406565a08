//! Where a packet would go.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use lb_common::{PROTO_TCP, PROTO_UDP};
use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        explain::meant,
        refusals::{Failed, asked, refused},
        router::Desk,
    },
    packet::{self, Explained},
    snapshot::Snapshot,
    vip::Pools,
};

/// What is asked about a packet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Wish {
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
pub(in crate::admin) async fn explain(
    State(desk): State<Desk>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Response> {
    let wish = asked(wish)?;
    let path = desk.packet_path()?;
    let snapshot = desk.known()?;
    if wish.client.is_ipv4() != wish.vip.is_ipv4() {
        let why = format!("{} and {} are of two families", wish.client, wish.vip);
        return Err(refused(StatusCode::UNPROCESSABLE_ENTITY, why));
    }
    let known = meant(&snapshot, desk.pools, &wish.vip.to_string());
    let vip = known.and_then(|(_, service)| service.vip);
    let vip = vip.or_else(|| v4_of(wish.vip.ip()));
    let vip = vip.ok_or_else(|| {
        let why = format!("nobody has the address {}", wish.vip.ip());
        refused(StatusCode::NOT_FOUND, why)
    })?;
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
    let explained = path.explain(question).await;
    let explained = explained.ok_or_else(|| Failed::Silent.answer())?;
    let explained = explained.map_err(|why| refused(StatusCode::SERVICE_UNAVAILABLE, why))?;
    Ok(Json(told(&wish, &explained, &snapshot, desk.pools)).into_response())
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
}
