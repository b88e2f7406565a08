//! `events`: what happened of late, or as it happens.

use std::{
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::sleep,
};

use super::{
    Answer, Exit, Failure, Look, Output, PATIENCE,
    client::Client,
    follow::print,
    table::{Rows, words},
};
use crate::admin::{
    compose::age,
    events::{Event, EventList, MOST},
    text::{self, visible_json},
};

/// Lists the newest events, and goes on with those that come if that is asked for.
pub(super) async fn events(
    client: &Client,
    look: &Look,
    output: Output,
    out: &mut dyn Write,
) -> Answer {
    let list = client.events(None, look.limit, PATIENCE).await?;
    if !look.follow {
        return Ok((rows(&list).print(output, &list.events)?, Exit::Fine));
    }
    let mut interrupted = signal(SignalKind::interrupt()).map_err(Failure::Print)?;
    let (mut list, mut head) = (list, true);
    loop {
        if !print(out, &lines(&list, output, head)?)? {
            return Ok((String::new(), Exit::Fine));
        }
        head = false;
        let next = async {
            sleep(PAUSE).await;
            client.events(Some(list.last), MOST, PATIENCE).await
        };
        let next = tokio::select! {
            next = next => next?,
            _ = interrupted.recv() => return Ok((String::new(), Exit::Interrupted)),
        };
        // Another agent counts from 1 again.
        list = match next.last < list.last {
            true => client.events(Some(0), MOST, PATIENCE).await?,
            false => next,
        };
    }
}

/// The lines of a list that goes on: one object each in JSON.
fn lines(list: &EventList, output: Output, head: bool) -> Result<String, Failure> {
    let rows = rows(list);
    let text = match output {
        Output::Table => rows.text(false),
        Output::Wide => rows.text(true),
        Output::Csv => rows.csv(),
        Output::Json => {
            let mut text = String::new();
            for event in &list.events {
                text += &visible_json(&serde_json::to_string(event)?);
                text.push('\n');
            }
            return Ok(text);
        }
    };
    let missed = match list.missed {
        true => "some events are missing here: they are kept no more\n",
        false => "",
    };
    let body = match head {
        true => text.as_str(),
        false => text.split_once('\n').map_or("", |(_, body)| body),
    };
    Ok(match output {
        Output::Csv => body.to_owned(),
        _ => format!("{missed}{body}"),
    })
}

/// A line for each. `AGE` is how long ago it was.
pub(super) fn rows(list: &EventList) -> Rows<8> {
    let mut rows = Rows::new([
        words("AGE"),
        words("KIND"),
        words("SUBJECT"),
        words("FROM"),
        words("TO"),
        words("WHY"),
        words("BY"),
        words("NUMBER").wide(),
    ]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now_unix = now.map_or(0, |now| now.as_secs());
    for event in &list.events {
        let Event { number, unix, what } = &**event;
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        rows.push([
            text::duration(age(now_unix, *unix)),
            what.kind.as_str().to_owned(),
            what.subject.clone(),
            text(&what.from),
            text(&what.to),
            text(&what.cause),
            text(&what.actor),
            number.to_string(),
        ]);
    }
    rows
}

/// Between two questions.
const PAUSE: Duration = Duration::from_secs(1);
