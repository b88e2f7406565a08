//! Packets, told as they come.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Query, State, rejection::QueryRejection},
    http::header,
    response::{IntoResponse as _, Response},
};
use futures_util::stream;
use serde::{Deserialize, Serialize};

use crate::{
    admin::{
        explain::meant,
        guard::Actor,
        refusals::{Failed, asked, no_service, only_here},
        router::Desk,
    },
    packet::{self, Glance, Told},
};

/// What packets are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Watch {
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

/// `GET /api/v1/packet/trace`, on the socket only: packets say who talks with whom, and what.
pub(in crate::admin) async fn trace(
    State(desk): State<Desk>,
    Extension(actor): Extension<Actor>,
    watch: Result<Query<Watch>, QueryRejection>,
) -> Result<Response, Response> {
    let why = "packets say who talks with whom: run `lb-agent trace --packets` on this host";
    only_here(&actor, why)?;
    let watch = asked(watch)?;
    let path = desk.packet_path()?;
    let service = match watch.service.as_deref() {
        None => None,
        Some(name) => {
            let snapshot = desk.known()?;
            let meant = meant(&snapshot, desk.pools, name);
            Some(meant.ok_or_else(|| no_service(name))?.0.clone())
        }
    };
    // Without a word all of them are meant.
    let sample = match (watch.sample, &service) {
        (0, None) => 1,
        (sample, _) => sample,
    };
    let trace = packet::Trace { service, sample };
    let Some(hears) = path.trace(trace).await else {
        return Err(Failed::Silent.answer());
    };
    // Whoever goes away drops this, and with it the receiver: that is how the stage knows.
    let lines = stream::unfold(hears, |mut hears| async move {
        let line = bytes(&line(hears.recv().await?));
        Some((Ok::<_, Infallible>(line), hears))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(lines)).into_response())
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

fn bytes(line: &Line) -> Bytes {
    // Numbers and texts: there is nothing that JSON has no form for.
    let mut text = serde_json::to_string(line).unwrap_or_default();
    text.push('\n');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

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
