//! What is wrong, and what to do: the first thing that somebody who was called looks for. Pure, but for the answer to who
//! asks for it as JSON.

use axum::{Extension, Json, extract};
use maud::{Markup, html};
use serde::Serialize;

use super::view::escaped;
use crate::{
    admin::{
        guard::Access,
        report::{Backend, Mark, Report, Service, ServiceState},
        reports::apart,
        router::Desk,
        text,
    },
    catalog::{Problem, SourceHealth},
    order::Mode,
    snapshot::State,
};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(in crate::admin) struct Wrong {
    /// How bad it is.
    mark: Mark,
    /// Where it is: a service, a part of the agent, or what a registration is about.
    subject: String,
    /// Where more of it is on the page; `null` if there is no more.
    href: Option<String>,
    /// What is wrong.
    what: String,
    /// What to do; empty if that is not known. Commands stand between backticks.
    remedy: String,
}

/// `GET /api/v1/wrong`: everything that is wrong, worst first, as the page has it.
pub(in crate::admin) async fn tell(
    extract::State(desk): extract::State<Desk>,
    Extension(access): Extension<Access>,
) -> Json<Vec<Wrong>> {
    let report = desk.report_for(&access).await;
    Json(apart(move || all(&report)).await)
}

/// The path.
pub(in crate::admin) const WRONG_PATH: &str = "/api/v1/wrong";

/// Everything that is wrong, worst first.
pub(super) fn all(report: &Report) -> Vec<Wrong> {
    let services = report.services.iter().flatten();
    let mut all: Vec<Wrong> = services.filter_map(service).collect();
    let own = |name: &str| name == "services";
    let parts = report.components.iter();
    all.extend(
        parts
            .filter(|part| part.mark != Mark::Ok && !own(&part.name))
            .map(|part| Wrong {
                mark: part.mark,
                subject: part.name.clone(),
                href: Some("/#parts".to_owned()),
                what: part.detail.clone(),
                remedy: of_part(&part.name).to_owned(),
            }),
    );
    all.extend(report.problems.iter().map(problem));
    all.sort_by_key(|wrong| wrong.mark);
    all
}

/// Those that are no part's and no service's.
pub(super) fn problems(all: &[Problem]) -> Vec<Wrong> {
    all.iter().map(problem).collect()
}

/// Messages say what is wrong and then, behind the last semicolon, what to do.
fn problem(problem: &Problem) -> Wrong {
    let (what, remedy) = match problem.message.rsplit_once("; ") {
        Some((what, remedy)) => (what, capital(remedy)),
        None => (&*problem.message, String::new()),
    };
    Wrong {
        mark: Mark::Warning,
        subject: problem.subject.clone(),
        href: None,
        what: capital(what),
        remedy,
    }
}

pub(super) fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).collect()
}

fn of_part(name: &str) -> &'static str {
    match name {
        "data plane" => "Run `lb-agent status`, and see the agent's log for the hook or map.",
        "agent" => "Wait for the first answers; if it stays so, see the agent's log.",
        _ if name.starts_with("source ") => {
            "See that it can be reached from this host. What was known goes on being served."
        }
        _ => "See the agent's log.",
    }
}

/// Why a service does not serve as it should; `None` if it does.
fn service(service: &Service) -> Option<Wrong> {
    let out: Vec<&Backend> = match service.state {
        ServiceState::Ok => return None,
        ServiceState::Degraded => {
            let fails = |backend: &&Backend| {
                use State::{ConsulCritical, ConsulWarning, L4Down};
                matches!(backend.state, L4Down | ConsulWarning | ConsulCritical)
            };
            service.backends.iter().filter(fails).collect()
        }
        ServiceState::Refused => service.backends.iter().collect(),
    };
    let all = service.backends.len();
    let (mark, start) = match service.state {
        _ if all == 0 => (
            Mark::Error,
            "Connections are refused: no instance is registered.".to_owned(),
        ),
        ServiceState::Refused => (
            Mark::Error,
            format!(
                "Connections are refused: none of {} can be used.",
                text::count(all, "instance")
            ),
        ),
        _ => (
            Mark::Warning,
            format!("{} of {all} instances cannot be used.", out.len()),
        ),
    };
    let mut what = start;
    for backend in out.iter().take(CAUSES) {
        what.push_str(&format!(" {}: {}.", backend.key.id, cause(backend)));
    }
    if out.len() > CAUSES {
        what.push_str(&format!(" And {} more.", out.len() - CAUSES));
    }
    Some(Wrong {
        mark,
        subject: service.name.clone(),
        href: Some(href(service)),
        what,
        remedy: remedy(service, out.first().copied()),
    })
}

/// Why a backend takes no new flows.
pub(super) fn cause(backend: &Backend) -> String {
    match backend.state {
        State::Usable => "it takes connections".to_owned(),
        State::Starting => "it waits for its first successful probe".to_owned(),
        State::L4Down => {
            let error = backend.probe.error.as_deref();
            format!(
                "our probe of {} fails{}",
                backend.address,
                error.map_or_else(String::new, |error| format!(" ({})", line(error)))
            )
        }
        State::ConsulWarning | State::ConsulCritical => {
            let checks = backend.source.checks.iter();
            let failing = checks.filter(|check| check.health != SourceHealth::Passing);
            match failing.max_by_key(|check| check.health) {
                None => "the source says that it fails".to_owned(),
                Some(check) => format!(
                    "the check “{}” is {}{}",
                    line(&check.name),
                    super::word(check.health),
                    match line(&check.output) {
                        "" => String::new(),
                        output => format!(" (“{output}”)"),
                    }
                ),
            }
        }
        State::Maintenance if backend.mode == Mode::Maintenance => {
            "an operator has it in maintenance".to_owned()
        }
        State::Maintenance => "it is in maintenance".to_owned(),
        State::Draining => "an operator drains it".to_owned(),
        State::Leaving => "its container is ending".to_owned(),
    }
}

/// What to do, by the first cause.
fn remedy(service: &Service, first: Option<&Backend>) -> String {
    let Some(backend) = first else {
        return "Start an instance, or register one in the source.".to_owned();
    };
    let name = &service.name;
    match backend.state {
        State::L4Down => format!(
            "See that something listens at {} and that this host reaches it.",
            backend.address
        ),
        State::ConsulWarning | State::ConsulCritical => {
            format!("Repair the instance; `lb-agent backends {name}` has all that its checks say.")
        }
        State::Maintenance if backend.mode == Mode::Maintenance => format!(
            "Put it back: `lb-agent maintenance {name}/{} --undo`.",
            backend.key.id
        ),
        State::Maintenance => {
            "End the maintenance where it was begun, for example with `consul maint -disable`."
                .to_owned()
        }
        State::Draining => format!(
            "Put it back: `lb-agent drain {name}/{} --undo`.",
            backend.key.id
        ),
        State::Starting => "Wait; if it stays so, look at its probe below.".to_owned(),
        State::Leaving => "Start another instance.".to_owned(),
        State::Usable => String::new(),
    }
}

/// The first line, not too long.
fn line(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default().trim();
    let end = first
        .char_indices()
        .nth(LONGEST)
        .map_or(first.len(), |it| it.0);
    &first[..end]
}

/// Where the service's section is, on whichever page.
pub(super) fn href(service: &Service) -> String {
    format!("/service/{}", escaped(&service.label))
}

pub(super) fn section(all: &[Wrong]) -> Markup {
    let more = all.len().saturating_sub(SHOWN);
    html! {
        h2 id="wrong-title" { "What is wrong, and what to do" }
        @if all.is_empty() {
            p.fine { "Nothing: every part works, and every service has the instances that it should." }
        } @else {
            (table(&all[..all.len() - more]))
            @if more > 0 {
                p { "And " (more) " more: " code { "lb-agent status" } " and the list of services have all." }
            }
        }
    }
}

/// Under the heading `wrong-title`.
pub(super) fn table(all: &[Wrong]) -> Markup {
    html! {
        table.wrong aria-labelledby="wrong-title" {
            thead {
                tr {
                    th scope="col" { "how bad" }
                    th scope="col" { "where" }
                    th scope="col" { "what is wrong" }
                    th scope="col" { "what to do" }
                }
            }
            tbody {
                @for wrong in all {
                    tr.(wrong.mark.as_str()) {
                        td.mark data-label="how bad" { (wrong.mark.as_str()) }
                        th scope="row" {
                            @if let Some(href) = &wrong.href { a href=(href) { (wrong.subject) } }
                            @else { (wrong.subject) }
                        }
                        td data-label="what is wrong" { (code(&wrong.what)) }
                        td data-label="what to do" { (code(&wrong.remedy)) }
                    }
                }
            }
        }
    }
}

/// What stands between backticks is for a terminal.
pub(super) fn code(text: &str) -> Markup {
    html! {
        @for (at, part) in text.split('`').enumerate() {
            @if at % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// Instances whose causes are told.
const CAUSES: usize = 3;
/// Characters of one line of a check.
const LONGEST: usize = 120;
/// Rows.
const SHOWN: usize = 30;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{compose::compose, sample};

    #[test]
    fn a_service_that_is_refused_says_why_and_what_to_do() {
        let snapshot = sample::snapshot();
        let report = compose(sample::material(Some(&snapshot), None));
        let all = all(&report);
        let db = &all[0];
        assert_eq!((db.mark, db.subject.as_str()), (Mark::Error, "db"));
        assert_eq!(
            db.what,
            "Connections are refused: none of 1 instance can be used. db-1: the check “db alive” is critical (“no answer”)."
        );
        assert!(
            db.remedy.contains("`lb-agent backends db`"),
            "{}",
            db.remedy
        );
    }

    #[test]
    fn a_degraded_service_names_those_that_fail_and_not_those_that_were_taken_out() {
        let snapshot = sample::snapshot();
        let report = compose(sample::material(Some(&snapshot), None));
        let all = all(&report);
        let hello = all.iter().find(|it| it.subject == "www_hello").unwrap();
        assert_eq!(
            hello.what,
            "1 of 3 instances cannot be used. b: our probe of 10.0.0.2:80 fails (connection refused)."
        );
        assert!(hello.remedy.contains("listens at 10.0.0.2:80"));
    }

    #[test]
    fn every_state_has_a_cause_and_all_but_usable_a_remedy() {
        let snapshot = sample::snapshot();
        let report = compose(sample::material(Some(&snapshot), None));
        let service = &report.services.unwrap()[0];
        let mut backend = service.backends[0].clone();
        for state in [
            State::Starting,
            State::L4Down,
            State::ConsulWarning,
            State::ConsulCritical,
            State::Maintenance,
            State::Draining,
            State::Leaving,
        ] {
            backend.state = state;
            assert!(!cause(&backend).is_empty());
            assert!(!remedy(service, Some(&backend)).is_empty(), "{state:?}");
        }
    }

    #[test]
    fn a_problem_is_cut_into_what_and_what_to_do() {
        let wrong = problem(&Problem::new(
            "service db",
            "has no VIP: the pool is full; widen it",
        ));
        assert_eq!(wrong.what, "Has no VIP: the pool is full");
        assert_eq!(wrong.remedy, "Widen it");
        assert_eq!(problem(&Problem::new("x", "is odd")).remedy, "");
    }
}
