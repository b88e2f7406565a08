//! Changes: what is ordered of instances.

use std::time::Duration;

use axum::{
    Extension, Json,
    extract::{State, rejection::JsonRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use prometheus_client::{
    encoding::EncodeLabelSet, metrics::counter::Counter, metrics::family::Family,
    registry::Registry,
};
use tokio::time::{Instant, timeout_at};

use super::{
    Follower,
    audit::{self, Deed},
    compose::unix,
    guard::Access,
    refusals::{Failed, give, ordered, refused},
    report::{StateAnswer, StateOrder},
    router::Desk,
};
use crate::{
    options::LONGEST,
    order::{Mode, OrderOutcome, OrderRequest},
    snapshot::Snapshot,
};

/// Counts of changes, for `/metrics`.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    actions: Family<ActionLabels, Counter>,
    refusals: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ActionLabels {
    action: &'static str,
    result: &'static str,
}

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "admin_actions",
            "Changes asked for through the admin interface",
            self.actions.clone(),
        );
        registry.register(
            "admin_refusals",
            "Requests that the admin interface refused before looking at them",
            self.refusals.clone(),
        );
    }

    pub(super) fn count_refusal(&self) {
        self.refusals.inc();
    }

    pub(super) fn count(&self, action: &'static str, result: &'static str) {
        let labels = ActionLabels { action, result };
        self.actions.get_or_create(&labels).inc();
    }
}

/// `POST /api/v1/instances/state`. Answered when it is in force; if that takes too long, with 202 and where it is not.
pub(super) async fn order(
    State(desk): State<Desk>,
    Extension(access): Extension<Access>,
    order: Result<Json<StateOrder>, JsonRejection>,
) -> Result<Response, Response> {
    let order = ordered(order)?;
    judge(&order).map_err(|wrong| refused(StatusCode::UNPROCESSABLE_ENTITY, wrong))?;
    Ok(to_the_end(carry_out(desk, access, order)).await)
}

/// Whether the deadline is one.
pub(super) fn judge(order: &StateOrder) -> Result<(), String> {
    match (order.mode, order.deadline_seconds) {
        (Mode::Ready, Some(_)) => {
            Err("`deadline_seconds` is for drain and maintenance: leave it out".to_owned())
        }
        (_, Some(seconds)) if seconds > LONGEST.as_secs() => Err(format!(
            "`deadline_seconds` is at most {}: a day",
            LONGEST.as_secs()
        )),
        _ => Ok(()),
    }
}

/// Goes on when who asked leaves: what was ordered is kept and told.
pub(super) async fn to_the_end(work: impl Future<Output = Response> + Send + 'static) -> Response {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|_| Failed::Unknown.answer())
}

async fn carry_out(desk: Desk, access: Access, order: StateOrder) -> Response {
    let until = Instant::now() + PATIENCE;
    let before = desk.snapshots.borrow().clone();
    let request = |reply| OrderRequest {
        service: order.service.clone(),
        backend: order.backend.clone(),
        mode: order.mode,
        deadline: order.deadline_seconds.map(Duration::from_secs),
        reply,
    };
    let outcome = give(&desk.orders, request, until).await;
    keep(&desk, &access, &order, (before.as_deref(), &outcome));
    match outcome {
        Ok(outcome) => {
            let not_yet_in = await_force(desk.followers, outcome.snapshot, until).await;
            let status = if not_yet_in.is_empty() {
                StatusCode::OK
            } else {
                StatusCode::ACCEPTED
            };
            let answer = StateAnswer {
                service: order.service,
                matched: outcome.matched,
                mode: outcome.order.mode,
                cut_unix: outcome.order.until.map(unix),
                not_yet_in,
            };
            (status, Json(answer)).into_response()
        }
        Err(failed) => failed.answer(),
    }
}

/// Keeps what became of an order, with the states of its instances.
fn keep(
    desk: &Desk,
    access: &Access,
    order: &StateOrder,
    (before, outcome): (Option<&Snapshot>, &Result<OrderOutcome, Failed>),
) {
    let service = before.and_then(|it| it.find(&order.service));
    let states = |outcome: &OrderOutcome, order| {
        let (_, service) = service?;
        Some(audit::states(service, &outcome.matched, order))
    };
    let deed = Deed {
        action: order.mode.as_str(),
        object: match &order.backend {
            None => format!("service {}", order.service),
            Some(backend) => format!("instance {backend} of service {}", order.service),
        },
        before: outcome.as_ref().ok().and_then(|it| states(it, None)),
    };
    let after = outcome.as_ref().map(|it| {
        let states = states(it, Some(it.order));
        let states = states.unwrap_or_else(|| format!("{} instances", it.matched.len()));
        match order.deadline_seconds {
            None => states,
            Some(seconds) => format!("{states}; flows are cut after {seconds} s"),
        }
    });
    audit::keep(desk, access, deed, after);
}

/// Waits until the snapshot of this number is in force everywhere; where it is not when the time is over.
async fn await_force(followers: Vec<Follower>, number: u64, until: Instant) -> Vec<String> {
    let mut late = Vec::new();
    for (name, mut reached) in followers {
        let reached = reached.wait_for(|reached| *reached >= Some(number));
        // An error means that the stage ended, and the agent with it.
        if !matches!(timeout_at(until, reached).await, Ok(Ok(_))) {
            late.push(name.to_owned());
        }
    }
    late
}

/// For the stage that keeps orders to answer, and for what it says to be in force. The command waits a little longer.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::sync::watch;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_order_is_in_force_when_everybody_follows_its_snapshot_and_who_is_late_is_named() {
        let until = Instant::now() + PATIENCE;
        let (maps_in, maps) = watch::channel(Some(6));
        let (front_in, front) = watch::channel(None);
        let followers = vec![("the maps", maps), ("the front", front)];
        let mut waiting = pin!(await_force(followers.clone(), 7, until));
        // A moment that is long enough for everything that is due by itself.
        let mut early = async |told| {
            let late = timeout_at(Instant::now() + PATIENCE / 10, &mut waiting).await;
            assert!(late.is_err(), "{told}: {late:?}");
        };
        early("neither").await;
        maps_in.send_replace(Some(7));
        front_in.send_replace(Some(6));
        early("not the front").await;
        front_in.send_replace(Some(8));
        assert_eq!(waiting.await, Vec::<String>::new());

        assert_eq!(await_force(followers.clone(), 8, until).await, ["the maps"]);
        assert_eq!(Instant::now(), until);
        let late = await_force(followers, 9, until).await;
        assert_eq!(late, ["the maps", "the front"]);
    }
}
