//! `drain` and `maintenance`: take backends out of service, or back in.

use std::{
    io::{self, IsTerminal as _, Write},
    time::Duration,
};

use super::{
    Answer, Exit, Failure, Output, PATIENCE,
    ask::Outage,
    client::Client,
    json,
    table::{Rows, words},
};
use crate::{
    admin::{
        compose::age,
        report::{Report, StateAnswer, StateOrder},
        text::{self, visible},
    },
    catalog::InstanceKey,
    options::{LONGEST, parse_duration},
    order::Mode,
};

/// Orders it, and tells whether it is in force.
pub(super) async fn order(
    client: &Client,
    output: Output,
    mode: Mode,
    outage: &Outage,
) -> Result<(String, Exit, StateAnswer), Failure> {
    let target = &*outage.target;
    let (service, backend) = match target.split_once('/') {
        Some((service, backend)) => (service, Some(backend.to_owned())),
        None => (target, None),
    };
    let order = StateOrder {
        service: service.to_owned(),
        backend,
        mode: if outage.undo { Mode::Ready } else { mode },
        deadline_seconds: outage.deadline.map(|it| it.as_secs()),
    };
    let answer = client.order(&order, PATIENCE).await?;
    let (text, exit) = ordered(&answer, outage.deadline, output)?;
    Ok((text, exit, answer))
}

/// Reads a `--deadline`.
///
/// # Errors
/// What to type instead.
pub(super) fn deadline(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).filter(|it| it.subsec_nanos() == 0 && *it <= LONGEST);
    time.ok_or_else(|| "it is whole seconds such as `30s` or `5m`, at most a day".to_owned())
}

/// Tells on `err` how many flows are left, until none is or their time has passed.
pub(super) async fn wait(
    client: &Client,
    answer: &StateAnswer,
    err: &mut dyn Write,
) -> Result<Exit, Failure> {
    let terminal = io::stderr().is_terminal();
    let (mut told, mut end) = (String::new(), End::of(answer));
    let exit = loop {
        let report = client.report(PATIENCE).await?;
        let left = left(&report, answer);
        if left.flows == Some(0) {
            break Exit::Fine;
        }
        end.look(&left, report.now_unix);
        if end.is_long_past(report.now_unix) {
            break Exit::Degraded;
        }
        let until = end.unix.map(|end| age(end, report.now_unix));
        let line = line(left.flows, until);
        if line != told {
            // If standard error is gone, the exit status is all that is left.
            let _ = match terminal {
                true => write!(err, "\r\x1b[K{line}"),
                false => writeln!(err, "{line}"),
            };
            let _ = err.flush();
            told = line;
        }
        tokio::time::sleep(EVERY).await;
    };
    if terminal && !told.is_empty() {
        let _ = write!(err, "\r\x1b[K");
    }
    if exit == Exit::Degraded {
        let _ = writeln!(err, "{told}: see `lb-agent flows`");
    }
    Ok(exit)
}

/// When the flows of an order should be gone.
#[derive(Debug)]
struct End {
    unix: Option<u64>,
    /// Whether the next look that finds no cut announced, and flows, is one after the cut: it is announced only until it was
    /// tried, which in maintenance, and where `lb_drain` is 0, may be before anybody looks.
    tried: bool,
    /// Whether the order is in force everywhere. Before that a cut may be announced later.
    in_force: bool,
}

impl End {
    fn of(answer: &StateAnswer) -> Self {
        Self {
            unix: answer.cut_unix,
            tried: answer.mode == Mode::Maintenance,
            in_force: answer.not_yet_in.is_empty(),
        }
    }

    fn look(&mut self, left: &Left, now_unix: u64) {
        let tried = self.tried.then_some(now_unix);
        self.unix = left.cut_unix.or(self.unix).or(tried);
        self.tried |= self.in_force && left.flows.is_some();
    }

    fn is_long_past(&self, now_unix: u64) -> bool {
        let late = |end| now_unix.saturating_sub(end) > PATIENCE.as_secs();
        self.unix.is_some_and(late)
    }
}

/// What is left of an order.
#[derive(Debug, PartialEq, Eq)]
struct Left {
    /// `None` when nobody says.
    flows: Option<u64>,
    /// When they are cut.
    cut_unix: Option<u64>,
}

fn left(report: &Report, answer: &StateAnswer) -> Left {
    let services = report.services.iter().flatten();
    let services: Vec<_> = services
        .filter(|it| it.name == answer.service || it.service == answer.service)
        .collect();
    let of = |key: &InstanceKey| {
        let backends = services.iter().flat_map(|it| &it.backends);
        let mut backends = backends.filter(|it| it.key == *key);
        let leaving = services.iter().flat_map(|it| &it.leaving);
        let mut leaving = leaving.filter(|it| it.key == *key);
        match (backends.next(), leaving.next()) {
            (Some(backend), _) => backend.active,
            (None, Some(leaving)) => Some(leaving.active),
            // It has gone, and its last flow with it.
            (None, None) => Some(0),
        }
    };
    let flows = match report.services {
        None => None,
        Some(_) => answer.matched.iter().map(of).sum(),
    };
    let cuts = report.cuts.iter();
    let cuts = cuts.filter(|cut| {
        let key = cut.key.as_ref();
        cut.service == answer.service && key.is_some_and(|key| answer.matched.contains(key))
    });
    Left {
        flows,
        cut_unix: cuts.map(|cut| cut.at_unix).max(),
    }
}

fn line(flows: Option<u64>, until: Option<Duration>) -> String {
    let flows = match flows {
        None => "the flows that are left are not known".to_owned(),
        Some(1) => "1 flow left".to_owned(),
        Some(n) => format!("{n} flows left"),
    };
    match until {
        None => flows,
        Some(left) if left.is_zero() => format!("{flows}, to be cut now"),
        Some(left) => format!("{flows}, cut in {}", text::duration(left)),
    }
}

pub(super) fn ordered(answer: &StateAnswer, deadline: Option<Duration>, output: Output) -> Answer {
    let text = match output {
        Output::Table | Output::Wide => told(answer, deadline),
        Output::Csv => rows(answer).csv(),
        Output::Json => json(answer)?,
    };
    let exit = if answer.not_yet_in.is_empty() {
        Exit::Fine
    } else {
        Exit::Degraded
    };
    Ok((text, exit))
}

fn rows(answer: &StateAnswer) -> Rows<5> {
    let mut rows = Rows::new(["SERVICE", "BACKEND", "MODE", "CUT", "NOT YET IN"].map(words));
    let cut = answer
        .cut_unix
        .map_or_else(String::new, |it| it.to_string());
    for key in &answer.matched {
        rows.push([
            answer.service.clone(),
            key.to_string(),
            answer.mode.as_str().to_owned(),
            cut.clone(),
            answer.not_yet_in.join(" "),
        ]);
    }
    rows
}

/// What an order did.
fn told(answer: &StateAnswer, deadline: Option<Duration>) -> String {
    let service = visible(&answer.service);
    let when = match (deadline, answer.mode) {
        (Some(time), _) => format!("after {}", text::duration(time)),
        (None, Mode::Maintenance) => "now".to_owned(),
        (None, _) => "after lb_drain".to_owned(),
    };
    let out = |state| format!("{state}   no new flows; established flows are cut {when}");
    let word = match (answer.not_yet_in.is_empty(), answer.mode) {
        (true, Mode::Drain) => out("draining"),
        (true, Mode::Maintenance) => out("maintenance"),
        (true, Mode::Ready) => "in service again".to_owned(),
        (false, Mode::Drain) => "to be drained".to_owned(),
        (false, Mode::Maintenance) => "to be in maintenance".to_owned(),
        (false, Mode::Ready) => "to be in service again".to_owned(),
    };
    let line = |key: &InstanceKey| {
        let key = key.to_string();
        format!("{service}  {}  {word}\n", visible(&key))
    };
    let mut text: String = answer.matched.iter().map(line).collect();
    if !answer.not_yet_in.is_empty() {
        let places: Vec<_> = answer.not_yet_in.iter().map(|it| visible(it)).collect();
        text += &format!(
            "ordered, but not yet in force in {}: see `lb-agent status`\n",
            places.join(" and ")
        );
    }
    text
}

/// Between two looks at what is left.
const EVERY: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::{compose::compose, report::Cut, sample};

    #[test]
    fn a_cut_that_was_never_announced_is_waited_for_no_longer_than_one_that_was() {
        let answer = |mode, not_yet_in| StateAnswer {
            service: "www_hello".to_owned(),
            matched: vec![sample::key("file", "a")],
            mode,
            cut_unix: None,
            not_yet_in,
        };
        let left = |flows, cut_unix| Left { flows, cut_unix };
        let ended = |answer: &StateAnswer, flows, seconds: u64| {
            let mut end = End::of(answer);
            (0..seconds).find(|now| {
                end.look(&left(flows, None), *now);
                end.is_long_past(*now)
            })
        };
        let patience = PATIENCE.as_secs() + 1;
        let drain = answer(Mode::Drain, vec![]);
        assert_eq!(ended(&drain, Some(3), 60), Some(1 + patience));
        let maintenance = answer(Mode::Maintenance, vec![]);
        assert_eq!(ended(&maintenance, Some(3), 60), Some(patience));
        // Unknown is not left over, and what is not in force may be announced yet.
        assert_eq!(ended(&drain, None, 60), None);
        let late = answer(Mode::Drain, vec!["the cutting of flows".to_owned()]);
        assert_eq!(ended(&late, Some(3), 60), None);
        // One that is announced holds.
        let mut end = End::of(&drain);
        for now in 0..=30 + PATIENCE.as_secs() {
            end.look(&left(Some(3), (now < 30).then_some(30)), now);
            assert!(!end.is_long_past(now), "after {now} s");
        }
        assert!(end.is_long_past(30 + patience));
    }

    #[test]
    fn the_flows_of_those_that_are_drained_are_counted() {
        let (snapshot, stats) = (sample::snapshot(), sample::stats());
        let mut report = compose(sample::material(Some(&snapshot), Some(&stats)));
        report.cuts = vec![Cut {
            service: "www_hello".to_owned(),
            key: Some(sample::key("file", "a")),
            address: None,
            at_unix: 1_700_000_012,
            active: Some(4),
        }];
        let drained = |ids: &[&str]| StateAnswer {
            service: "www_hello".to_owned(),
            matched: ids.iter().map(|id| sample::key("file", id)).collect(),
            mode: Mode::Drain,
            cut_unix: None,
            not_yet_in: Vec::new(),
        };
        let of = |ids: &[&str]| left(&report, &drained(ids));
        let cut_unix = Some(1_700_000_012);
        let flows = Some(6);
        assert_eq!(of(&["a", "c", "gone"]), Left { flows, cut_unix });
        let (flows, cut_unix) = (Some(0), None);
        assert_eq!(of(&["c", "never"]), Left { flows, cut_unix });
        let unknown = compose(sample::material(Some(&snapshot), None));
        let flows = None;
        assert_eq!(left(&unknown, &drained(&["a"])), Left { flows, cut_unix });
        assert_eq!(
            line(Some(6), Some(Duration::from_secs(12))),
            "6 flows left, cut in 12 s"
        );
    }
}
