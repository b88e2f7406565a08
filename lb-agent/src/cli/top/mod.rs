//! `top`: the busiest services and what goes wrong, on the whole terminal, until somebody has seen enough.

mod draw;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod model;
mod rows;
#[cfg(test)]
mod tests;

use std::{
    io::{self, IsTerminal as _},
    thread,
    time::{Duration, Instant},
};

use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::sleep,
};

use self::model::{Asked, Model};
use super::{Exit, Failure, PATIENCE, Style, client::Client};
use crate::admin::report::Report;

/// Whether there is a terminal to draw on and to read keys from.
pub(super) fn is_possible() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// Follows the agent until a key or a signal ends it. The terminal is as it was then, also after a panic.
pub(super) async fn follow(client: Client, style: Style) -> Result<Exit, Failure> {
    let mut ended = signal(SignalKind::terminate()).map_err(Failure::Print)?;
    let mut hung_up = signal(SignalKind::hangup()).map_err(Failure::Print)?;
    // It is its hook that puts the terminal right after a panic.
    let terminal = ratatui::try_init().map_err(Failure::Print)?;
    let shown = tokio::select! {
        shown = show(client, style, terminal) => shown,
        _ = ended.recv() => Ok(Exit::Interrupted),
        _ = hung_up.recv() => Ok(Exit::Interrupted),
    };
    ratatui::restore();
    shown
}

async fn show(
    client: Client,
    style: Style,
    mut terminal: DefaultTerminal,
) -> Result<Exit, Failure> {
    let mut reports = reports(client);
    let mut events = events();
    let mut model = Model::new(style);
    let start = Instant::now();
    loop {
        terminal
            .draw(|frame| draw::draw(frame, &mut model))
            .map_err(Failure::Print)?;
        tokio::select! {
            report = reports.recv() => match report {
                Some(Ok(report)) => model.apply(&report, start.elapsed()),
                Some(Err(why)) => model.lose(why),
                None => return Err(Failure::Ended),
            },
            event = events.recv() => match event {
                Some(Ok(Event::Key(key))) => match model.press(key) {
                    Asked::Nothing => {}
                    Asked::End => return Ok(Exit::Fine),
                    Asked::Interrupt => return Ok(Exit::Interrupted),
                },
                // The next drawing looks at the size by itself.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Failure::Print(error)),
                None => return Err(Failure::Ended),
            },
        }
    }
}

/// A report every now and then, or why there is none. A slow agent does not keep keys waiting.
fn reports(client: Client) -> mpsc::Receiver<Result<Report, String>> {
    let (out, reports) = mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let report = client.report(PATIENCE).await;
            if out.send(report.map_err(|it| it.to_string())).await.is_err() {
                return;
            }
            sleep(EVERY).await;
        }
    });
    reports
}

/// Keys, and changes of the size. The thread that waits for them ends with the process.
fn events() -> mpsc::UnboundedReceiver<io::Result<Event>> {
    let (out, events) = mpsc::unbounded_channel();
    thread::spawn(move || {
        loop {
            let event = event::read();
            let over = event.is_err();
            if out.send(event).is_err() || over {
                return;
            }
        }
    });
    events
}

/// Between two reports.
const EVERY: Duration = Duration::from_secs(2);
