//! Draws the model. Pure but for the frame.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style as Look},
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Row as TableRow, Sparkline, Table},
};

use super::{
    super::Style,
    model::{Model, Page},
};
use crate::admin::{report::Mark, text::visible};

/// Fits any size: what has no room is left out.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let [head, rates, pages, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let bold = Look::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Line::styled(model.head.as_str(), bold), head);
    draw_rates(frame, model, rates);
    let names = Page::ALL.iter().zip(1..).map(|(page, number)| {
        let look = match *page == model.page {
            true => Look::new().add_modifier(Modifier::REVERSED),
            false => Look::new(),
        };
        Span::styled(format!(" {number} {} ", page.name()), look)
    });
    frame.render_widget(Line::from_iter(names), pages);
    draw_page(frame, model, body);
    draw_foot(frame, model, foot);
    if model.help {
        draw_help(frame, body);
    }
}

fn draw_rates(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let [said, drawn] =
        Layout::horizontal([Constraint::Length(26), Constraint::Fill(1)]).areas(area);
    let newest = model.rates.back().copied().flatten();
    let newest = newest.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let text = format!("{newest}/s\nnew flows and requests");
    frame.render_widget(Paragraph::new(text), said);
    let room = usize::from(drawn.width);
    let skip = model.rates.len().saturating_sub(room);
    let rates = model.rates.iter().skip(skip).copied();
    frame.render_widget(Sparkline::default().data(rates), drawn);
}

fn draw_page(frame: &mut Frame<'_>, model: &mut Model, area: Rect) {
    let room = usize::from(area.height.saturating_sub(1));
    let last = model.rows().len().saturating_sub(room.max(1));
    model.scroll = model.scroll.min(last);
    let rows = model.rows();
    let (heads, widths) = columns(model.page);
    let lines = rows.iter().skip(model.scroll).take(room).map(|row| {
        let cells = row.cells.iter().zip(heads).map(|(cell, (_, right))| {
            let line = Line::from(cell.as_str());
            if *right { line.right_aligned() } else { line }
        });
        TableRow::new(cells).style(look(model.style, row.mark))
    });
    let heads = heads.iter().map(|(head, right)| {
        let line = Line::from(*head);
        if *right { line.right_aligned() } else { line }
    });
    let heads = TableRow::new(heads).style(Look::new().add_modifier(Modifier::BOLD));
    let table = Table::new(lines, widths).header(heads).column_spacing(2);
    frame.render_widget(table, area);
}

type Heads = &'static [(&'static str, bool)];

fn columns(page: Page) -> (Heads, Vec<Constraint>) {
    use Constraint::{Fill, Length, Max};
    match page {
        Page::Services => (
            &[
                ("SERVICE", false),
                ("STATE", false),
                ("USABLE", true),
                ("NEW/S", true),
                ("REQ/S", true),
                ("5XX %", true),
                ("REFUSED/S", true),
                ("ACTIVE", true),
            ],
            vec![
                Fill(1),
                Length(8),
                Length(6),
                Length(6),
                Length(6),
                Length(6),
                Length(9),
                Length(6),
            ],
        ),
        Page::Backends => (
            &[
                ("SERVICE", false),
                ("BACKEND", false),
                ("STATE", false),
                ("ERRORS", true),
                ("/S", true),
                ("ACTIVE", true),
            ],
            vec![
                Fill(1),
                Fill(1),
                Length(15),
                Length(6),
                Length(5),
                Length(6),
            ],
        ),
        Page::Refusals => (
            &[
                ("SERVICE", false),
                ("REASON", false),
                ("REFUSED", true),
                ("/S", true),
            ],
            vec![Fill(1), Length(10), Length(8), Length(6)],
        ),
        Page::Problems => (
            &[("MARK", false), ("WHERE", false), ("WHAT", false)],
            vec![Length(7), Max(24), Fill(1)],
        ),
    }
}

fn look(style: Style, mark: Mark) -> Look {
    match (style, mark) {
        (Style::Plain, _) | (_, Mark::Ok) => Look::new(),
        (Style::Colour, Mark::Error) => Look::new().fg(Color::Red),
        (Style::Colour, Mark::Warning | Mark::Unknown) => Look::new().fg(Color::Yellow),
    }
}

fn draw_foot(frame: &mut Frame<'_>, model: &Model, area: Rect) {
    let line = match (&model.lost, model.types) {
        (Some(why), _) => Line::styled(
            format!("! {}", visible(why)),
            look(model.style, Mark::Error),
        ),
        (None, true) => Line::from(format!("/{}_", visible(&model.filter))),
        (None, false) => {
            let filter = match model.filter.is_empty() {
                true => String::new(),
                false => format!("  only {}", visible(&model.filter)),
            };
            let order = model.order.name();
            Line::from(format!(
                "q end  ? help  / filter  s order: {order}  Tab page{filter}"
            ))
        }
    };
    frame.render_widget(line, area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let [_, area, _] = Layout::horizontal([
        Constraint::Fill(1),
        Constraint::Max(54),
        Constraint::Fill(1),
    ])
    .areas(area);
    let lines = u16::try_from(HELP.lines().count()).unwrap_or(u16::MAX);
    let height = area.height.min(lines.saturating_add(2));
    let area = Rect { height, ..area };
    frame.render_widget(Clear, area);
    frame.render_widget(Paragraph::new(HELP).block(Block::bordered()), area);
}

const HELP: &str = "\
Tab, 1 to 4  another page
/            only lines with a text; Esc shows all
s            order: most first, open flows, name
up, down     scroll; also j, k, PageUp, PageDown
?            this
q            end

Rates are of the time between two reports, 2 s.
ERRORS are failed connects and the front's failed
attempts. What is red or yellow is not well.";
