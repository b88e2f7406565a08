//! Carries out steps at a Consul agent. One that is refused does not stop the others.

use std::collections::BTreeMap;

use tokio::time::Instant;
use tracing::{info, warn};

use super::{
    meta::CHECKS,
    metrics::{Metrics, Request},
    plan::{Memory, Step},
    registration::{CheckKind, Registration},
    wish::Wishes,
};
use crate::{
    catalog::Problem,
    discover::consul::{
        RequestError,
        agent::{Agent, Report},
    },
};

/// Carries out `steps`. What the agent refused is told; `Err` says that it cannot be asked at all.
pub(super) async fn apply(
    agent: &Agent,
    steps: Vec<Step>,
    wishes: &Wishes,
    memory: &mut Memory,
    metrics: &Metrics,
) -> Result<Vec<Problem>, RequestError> {
    let mut problems = Vec::new();
    memory.owe(&steps);
    for step in steps {
        let kind = step.kind();
        let done = carry_out(agent, &step, wishes, memory).await;
        let result = if done.is_ok() { "ok" } else { "failed" };
        metrics
            .requests
            .get_or_create(&Request { kind, result })
            .inc();
        match done {
            Ok(()) => {}
            Err(error @ RequestError::Refused { .. }) => {
                let mut message = format!("cannot {kind}: {error}");
                if error.is_forbidden() {
                    message.push_str("; give a token with service_prefix \"\" write");
                }
                problems.push(Problem::new(step.subject(), message));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(problems)
}

async fn carry_out(
    agent: &Agent,
    step: &Step,
    wishes: &Wishes,
    memory: &mut Memory,
) -> Result<(), RequestError> {
    match step {
        Step::Register(registration) => register(agent, registration, wishes, memory).await,
        Step::Maintain { id, reason } => {
            agent.maintain(id, reason).await?;
            memory.owed.remove(id);
            info!(%id, reason, "maintenance begins");
            Ok(())
        }
        Step::Resume { id } => {
            agent.resume(id).await?;
            info!(%id, "maintenance ends");
            Ok(())
        }
        Step::Deregister { id } => {
            agent.deregister(id).await?;
            memory.without_scripts.remove(id);
            info!(%id, "deregistered");
            Ok(())
        }
        Step::Report { check, report } => {
            agent.report(check, report).await?;
            let told = (report.clone(), Instant::now());
            memory.reported.insert(check.clone(), told);
            Ok(())
        }
    }
}

/// Registers; where scripts are refused, a check in their place is critical and says why.
async fn register(
    agent: &Agent,
    registration: &Registration,
    wishes: &Wishes,
    memory: &mut Memory,
) -> Result<(), RequestError> {
    let Registration {
        id, name, address, ..
    } = registration;
    let none = BTreeMap::new();
    let reports = wishes.services.get(id).map_or(&none, |wish| &wish.reports);
    let refusal = match agent.register(registration, reports).await {
        Ok(()) => {
            memory.without_scripts.remove(id);
            info!(%id, service = name, %address, "registered");
            return Ok(());
        }
        Err(error) => error,
    };
    let Some((instead, broken)) = without_scripts(registration, &refusal) else {
        return Err(refusal);
    };
    let mut reports = reports.clone();
    reports.extend(broken);
    agent.register(&instead, &reports).await?;
    warn!(%id, service = name, error = %refusal, "registered with a check that cannot run");
    for (check, report) in &reports {
        agent.report(check, report).await?;
    }
    let kept = (registration.clone(), instead);
    memory.without_scripts.insert(id.clone(), kept);
    Ok(())
}

/// The registration with its scripts replaced, if it was refused for them.
fn without_scripts(
    registration: &Registration,
    refusal: &RequestError,
) -> Option<(Registration, BTreeMap<String, Report>)> {
    let RequestError::Refused { text, .. } = refusal else {
        return None;
    };
    // 1.8.7: "Scripts are disabled on this agent; to enable, configure 'enable_script_checks' or …".
    let about_scripts = text.to_ascii_lowercase().contains("script");
    let mut instead = registration.clone();
    let mut reports = BTreeMap::new();
    for check in &mut instead.checks {
        if matches!(check.kind, CheckKind::Command(_)) {
            let reason = format!(
                "Consul does not run this check: {text}; set enable_local_script_checks there, or \
                 use another kind"
            );
            reports.insert(check.id.clone(), Report::critical(&reason));
            check.kind = CheckKind::Unusable(reason);
            // Consul would remove it for our own word.
            check.deregister_after = None;
        }
    }
    let mark = Registration::checks_mark(&instead.checks);
    instead.meta.insert(CHECKS.to_owned(), mark);
    (about_scripts && !reports.is_empty()).then_some((instead, reports))
}

impl Step {
    fn kind(&self) -> &'static str {
        match self {
            Self::Maintain { .. } => "maintain",
            Self::Register(_) => "register",
            Self::Resume { .. } => "resume",
            Self::Deregister { .. } => "deregister",
            Self::Report { .. } => "report",
        }
    }

    fn subject(&self) -> String {
        match self {
            Self::Register(registration) => format!("registration {}", registration.id),
            Self::Maintain { id, .. } | Self::Resume { id } | Self::Deregister { id } => {
                format!("registration {id}")
            }
            Self::Report { check, .. } => format!("check {check}"),
        }
    }
}
