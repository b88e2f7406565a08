//! The graphs of the page as numbers.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use super::{Kind, Rings};
use crate::{
    admin::{
        refusals::asked,
        report::{Backend, Report, Service},
        reports::apart,
        router::Desk,
        stream::{LABELS, labels},
    },
    catalog::InstanceKey,
};

/// What is asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Wish {
    /// Labels of services, a line each.
    services: Option<String>,
}

/// The answer to `GET /api/v1/history`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::admin) struct Past {
    /// Between two points.
    step_seconds: f64,
    /// All services together, as the page's summary has them.
    all: Totals,
    /// The services that were asked for, or the first ones.
    services: Vec<ServicePast>,
    /// How many there are that were not named here because one answer has room for 200.
    left_out: usize,
}

/// All services together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::admin) struct Totals {
    /// New flows in the last step; `null` when not known.
    pub(in crate::admin) flows_per_second: Option<f64>,
    /// Requests through the front; `null` when not known.
    pub(in crate::admin) requests_per_second: Option<f64>,
    /// Open flows; `null` when not known.
    pub(in crate::admin) active: Option<u64>,
}

impl Totals {
    /// Those of the services in `report`.
    pub(in crate::admin) fn of(report: &Report, rings: &Rings) -> Self {
        let mut all = Self::default();
        for service in report.services.iter().flatten() {
            let rate = |kind| rings.last_rate(&service.label, kind);
            add(&mut all.flows_per_second, rate(Kind::Flows));
            add(&mut all.requests_per_second, rate(Kind::Requests));
            if let Some(flows) = service.flows {
                all.active = Some(all.active.unwrap_or(0) + flows.active);
            }
        }
        all
    }
}

fn add(sum: &mut Option<f64>, more: Option<f64>) {
    if let Some(more) = more {
        *sum = Some(sum.unwrap_or(0.0) + more);
    }
}

/// A service in the last minutes. Each series has a point for each step, the oldest first and the last one of all series
/// at the same moment; `null` where it is not known. A series is as long as it has been looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct ServicePast {
    /// Its label.
    label: String,
    /// New flows within each step.
    flows: Vec<Option<u32>>,
    /// Connects within each step that were refused or failed.
    failures: Vec<Option<u32>>,
    /// Open flows at the end of each step.
    active: Vec<Option<u32>>,
    /// Requests through the front within each step.
    requests: Vec<Option<u32>>,
    /// Those of them that failed.
    errors: Vec<Option<u32>>,
    /// What the front counted since it started; `null` if it served no request of it.
    http: Option<HttpPast>,
    /// Its backends.
    backends: Vec<BackendPast>,
    /// How many of them are not told because one answer has room for 2000 of all services: ask for fewer services.
    left_out: usize,
}

/// What the front counted for a service since it started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct HttpPast {
    /// Requests that have ended.
    requests: u64,
    /// Those answered with 5xx, or not at all.
    errors: u64,
    /// A bound that half of them did not exceed; `null` when none was measured.
    p50_microseconds: Option<u64>,
    /// So with 99 of 100.
    p99_microseconds: Option<u64>,
    /// Bytes of the requests' bodies.
    received: u64,
    /// Bytes of the answers' bodies.
    sent: u64,
}

/// A backend in the last minutes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct BackendPast {
    /// Who it is.
    #[serde(flatten)]
    key: InstanceKey,
    /// New flows over TCP within each step.
    flows: Vec<Option<u32>>,
    /// When the last flow to it began, to a step, in seconds since 1970; `null` if none did since the agent looks.
    last_flow_unix: Option<u64>,
    /// Since when it is in its state, in seconds since 1970; `null` if it already was when the agent first looked.
    state_since_unix: Option<u64>,
}

/// `GET /api/v1/history`.
pub(in crate::admin) async fn tell(
    State(desk): State<Desk>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Response> {
    let wish = asked(wish)?;
    let report = desk.report().await;
    Ok(apart(move || Json(past(&report, &desk.history.read(), &wish)).into_response()).await)
}

fn past(report: &Report, rings: &Rings, wish: &Wish) -> Past {
    let asked = wish.services.as_deref().map(labels);
    let services = report.services.iter().flatten();
    let mut wanted = services.filter(|it| asked.as_ref().is_none_or(|all| all.contains(&it.label)));
    let mut room = BACKENDS;
    let told = |it| {
        let told = service(it, room, rings);
        room -= told.backends.len();
        told
    };
    Past {
        step_seconds: rings.step.as_secs_f64(),
        all: Totals::of(report, rings),
        services: wanted.by_ref().take(LABELS).map(told).collect(),
        left_out: wanted.count(),
    }
}

/// With as many backends as there is room for.
fn service(service: &Service, room: usize, rings: &Rings) -> ServicePast {
    let label = &service.label;
    let [flows, failures, active, requests, errors] = Kind::ALL.map(|kind| rings.line(label, kind));
    ServicePast {
        label: label.clone(),
        flows,
        failures,
        active,
        requests,
        errors,
        http: rings.http(label).map(|it| HttpPast {
            requests: it.requests,
            errors: it.errors,
            p50_microseconds: it.p50_microseconds,
            p99_microseconds: it.p99_microseconds,
            received: it.received,
            sent: it.sent,
        }),
        backends: service
            .backends
            .iter()
            .take(room)
            .map(|it| backend(label, it, rings))
            .collect(),
        left_out: service.backends.len().saturating_sub(room),
    }
}

fn backend(label: &str, backend: &Backend, rings: &Rings) -> BackendPast {
    let key = &backend.key;
    BackendPast {
        key: key.clone(),
        flows: rings.backend_line(label, key),
        last_flow_unix: rings.last_flow_unix(label, key),
        state_since_unix: rings.since_unix(label, key),
    }
}

/// Backends of one answer: each has 120 points, and all are written while nobody can add to the rings.
const BACKENDS: usize = 2000;
/// The path.
pub(in crate::admin) const HISTORY_PATH: &str = "/api/v1/history";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admin::{compose::compose, sample},
        snapshot::{self, ServiceName},
    };

    #[test]
    fn backends_beyond_what_an_answer_has_room_for_are_counted_with_their_service() {
        let mut snapshot = sample::snapshot();
        let name = ServiceName::whole("www_hello");
        let mut big = snapshot::Service::clone(&snapshot.services[&name]);
        let one = big.backends.values().next().unwrap().clone();
        big.backends.clear();
        for at in 0..1500 {
            let key = InstanceKey::new("n", format!("{at:04}"));
            big.backends.insert(key, one.clone());
        }
        snapshot.services = Default::default();
        for at in 0..3 {
            let name = ServiceName::whole(format!("big_{at}"));
            snapshot.services.insert(name, big.clone().into());
        }
        let report = compose(sample::material(Some(&snapshot), None));
        let told = |services: Option<&str>| {
            let services = services.map(str::to_owned);
            let past = past(&report, &Rings::default(), &Wish { services });
            let services = past.services.iter();
            let counts = services.map(|it| (it.backends.len(), it.left_out));
            (counts.collect::<Vec<_>>(), past.left_out)
        };
        assert_eq!(told(None), (vec![(1500, 0), (500, 1000), (0, 1500)], 0));
        // Who asks for it is told of it.
        assert_eq!(told(Some("big_2")), (vec![(1500, 0)], 0));
    }
}
