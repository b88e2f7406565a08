//! What is kept of every change that somebody asks for: a line in the log, an event, a count.

use tracing::{info, warn};

use super::{
    events::{Happened, Kind},
    guard::Access,
    refusals::Failed,
    router::Desk,
};
use crate::{catalog::InstanceKey, order::Order, snapshot::Service};

/// What somebody asked for.
#[derive(Clone, Debug)]
pub(super) struct Deed {
    /// The kind of it, from a fixed list.
    pub(super) action: &'static str,
    /// What it is about.
    pub(super) object: String,
    /// How that was before, where it is known.
    pub(super) before: Option<String>,
}

/// Keeps what became of `deed`: how its object is now, or why nothing changed, or that this is not known. Names are logged quoted: they may hold line
/// breaks.
pub(super) fn keep(desk: &Desk, access: &Access, deed: Deed, outcome: Result<String, &Failed>) {
    let (actor, source) = (access.who, access.source());
    let Deed {
        action,
        object,
        before,
    } = deed;
    let (after, result, cause) = match outcome {
        Ok(after) => {
            info!(target: "audit", %actor, source, action, ?object, ?before, ?after, result = "ok", "changed");
            (Some(after), "ok", format!("{action} from {source}"))
        }
        Err(Failed::Unknown) => {
            warn!(target: "audit", %actor, source, action, ?object, ?before, result = "unknown", "perhaps changed");
            let cause = format!("{action} from {source}: {}", Failed::Unknown.why());
            (Some("unknown".to_owned()), "unknown", cause)
        }
        Err(failed) => {
            warn!(target: "audit", %actor, source, action, ?object, ?before, ?failed, result = "refused", "not changed");
            let cause = format!("{action} from {source} was refused: {}", failed.why());
            (before.clone(), "refused", cause)
        }
    };
    desk.counts.count(action, result);
    desk.events.add(Happened {
        kind: Kind::Change,
        subject: object,
        from: before,
        to: after,
        cause: Some(cause),
        actor: Some(actor.to_string()),
    });
}

/// How these instances of `service` are, or would be by this `order`.
pub(super) fn states(service: &Service, instances: &[InstanceKey], order: Option<Order>) -> String {
    let state = |key: &InstanceKey| {
        let mut backend = service.backends.get(key)?.clone();
        backend.order = order.unwrap_or(backend.order);
        Some(format!("{key} {}", backend.state().as_str()))
    };
    let states = instances.iter().take(TOLD).filter_map(state);
    let mut states: Vec<_> = states.collect();
    if let Some(more) = instances.len().checked_sub(TOLD).filter(|more| *more > 0) {
        states.push(format!("and {more} more"));
    }
    states.join(", ")
}

/// Instances whose states are told.
const TOLD: usize = 20;
