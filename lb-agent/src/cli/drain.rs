//! `drain`: takes backends out of service, or back in.

use super::{
    Answer, Exit, Output, PATIENCE,
    client::Client,
    json,
    table::{Rows, words},
};
use crate::admin::{
    report::{DrainAnswer, DrainOrder},
    text::visible,
};

/// Orders it, and tells whether it is in force.
pub(super) async fn drain(client: &Client, output: Output, target: &str, undo: bool) -> Answer {
    let (service, backend) = match target.split_once('/') {
        Some((service, backend)) => (service, Some(backend.to_owned())),
        None => (target, None),
    };
    let order = DrainOrder {
        service: service.to_owned(),
        backend,
        undo,
    };
    drained(&client.drain(&order, PATIENCE).await?, output)
}

pub(super) fn drained(answer: &DrainAnswer, output: Output) -> Answer {
    let text = match output {
        Output::Table | Output::Wide => told(answer),
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

fn rows(answer: &DrainAnswer) -> Rows<4> {
    let mut rows = Rows::new(["SERVICE", "BACKEND", "DRAINING", "NOT YET IN"].map(words));
    let draining = if answer.draining { "yes" } else { "no" };
    for key in &answer.matched {
        rows.push([
            answer.service.clone(),
            key.to_string(),
            draining.to_owned(),
            answer.not_yet_in.join(" "),
        ]);
    }
    rows
}

/// What a drain did.
fn told(answer: &DrainAnswer) -> String {
    let service = visible(&answer.service);
    let word = match (answer.not_yet_in.is_empty(), answer.draining) {
        (true, true) => "draining   no new flows; established flows are cut after lb_drain",
        (true, false) => "in service again",
        (false, true) => "to be drained",
        (false, false) => "to be in service again",
    };
    let line = |key: &crate::catalog::InstanceKey| {
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
