//! The door of the fuzz targets to what is drawn.

use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend};

use super::{
    super::Style,
    draw::draw,
    model::{Model, Page},
};
use crate::admin::report::Report;

/// Every page after these reports, a line each.
pub(in crate::cli) fn drawn(reports: &[Report], every: Duration) -> String {
    let mut model = Model::new(Style::Plain);
    let mut at = Duration::ZERO;
    for report in reports {
        model.apply(report, at);
        at += every;
    }
    let mut text = String::new();
    for page in Page::ALL {
        model.page = page;
        let Ok(mut terminal) = Terminal::new(TestBackend::new(200, 30));
        let Ok(_) = terminal.draw(|frame| draw(frame, &mut model));
        let cells = terminal.backend().buffer().content.chunks(200);
        for line in cells {
            text.extend(line.iter().map(ratatui::buffer::Cell::symbol));
            text.push('\n');
        }
    }
    text
}
