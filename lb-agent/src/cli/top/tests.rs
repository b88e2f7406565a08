//! Pages drawn into a buffer, compared with files that `LB_WRITE_GOLDEN=1` writes anew.

use std::{fmt::Write as _, fs, path::Path};

use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    crossterm::event::{KeyCode, KeyEvent, KeyModifiers},
    style::{Color, Modifier},
};

use super::{super::Style, draw::draw, model::*, *};
use crate::admin::{compose::compose, sample, text::obeyed};

fn report() -> Report {
    let (snapshot, stats, front) = (sample::snapshot(), sample::stats(), sample::front());
    let mut material = sample::material(Some(&snapshot), Some(&stats));
    material.front = Some(&front);
    compose(material)
}

/// A model that has seen reports for a minute and a half, in which more was done from time to time.
fn model(style: Style) -> Model {
    let (mut model, mut report) = (Model::new(style), report());
    for step in 0..48 {
        for (at, service) in (1..).zip(report.services.iter_mut().flatten()) {
            let wave = (step * at) % 17 * 11;
            if let Some(flows) = &mut service.flows {
                // The first one has no usable instance.
                match at {
                    1 => {
                        flows.refused += wave + 3;
                        flows.refusals.no_backend += wave + 3;
                    }
                    _ => flows.total += wave + 3,
                }
            }
            if let Some(http) = service.http.as_mut().filter(|_| at > 1) {
                http.requests += 2 * wave;
                http.errors += wave / 100;
            }
        }
        model.apply(
            &report,
            2 * u32::try_from(step).unwrap() * Duration::from_secs(1),
        );
    }
    model
}

fn drawn(model: &mut Model, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model)).unwrap();
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer) -> Vec<&[Cell]> {
    buffer.content.chunks(buffer.area.width.into()).collect()
}

fn text(buffer: &Buffer) -> String {
    let line = |cells: &&[Cell]| {
        let line: String = cells.iter().map(Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    lines(buffer).iter().map(line).collect()
}

fn press(model: &mut Model, code: KeyCode) -> Asked {
    model.press(KeyEvent::new(code, KeyModifiers::NONE))
}

/// `path` is below the repository.
#[track_caller]
fn compare(path: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if std::env::var_os("LB_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, made).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        kept,
        made,
        "{}: LB_WRITE_GOLDEN=1 writes it",
        path.display()
    );
}

#[test]
fn each_page_fits_a_small_terminal() {
    let mut model = model(Style::Plain);
    let mut all = String::new();
    for page in Page::ALL {
        assert_eq!(model.page, page);
        all += &text(&drawn(&mut model, (80, 24)));
        press(&mut model, KeyCode::Tab);
    }
    press(&mut model, KeyCode::Char('?'));
    all += &text(&drawn(&mut model, (80, 24)));
    compare("lb-agent/tests/cli/golden/top.txt", &all);
}

#[test]
fn the_picture_in_the_documents_is_drawn_by_this() {
    let mut model = model(Style::Colour);
    compare("docs/images/top.svg", &svg(&drawn(&mut model, (96, 14))));
}

#[test]
fn keys_turn_pages_filter_order_and_end() {
    let mut model = model(Style::Plain);
    let first = |model: &Model| model.rows().first().map(|row| row.cells[0].clone());
    let names = |model: &Model| {
        let rows = model.rows().into_iter();
        rows.map(|row| row.cells[0].clone()).collect::<Vec<_>>()
    };
    press(&mut model, KeyCode::Char('s'));
    // It has most open flows.
    assert_eq!(first(&model).as_deref(), Some("www_hello"));
    press(&mut model, KeyCode::Char('s'));
    assert_eq!(names(&model), ["db", "www", "www.world.dev", "www_hello"]);
    press(&mut model, KeyCode::Char('/'));
    for c in "www_q".chars() {
        press(&mut model, KeyCode::Char(c));
    }
    assert!(names(&model).is_empty());
    press(&mut model, KeyCode::Backspace);
    press(&mut model, KeyCode::Enter);
    assert_eq!(names(&model), ["www_hello"]);
    press(&mut model, KeyCode::Esc);
    assert_eq!(names(&model).len(), 4);
    press(&mut model, KeyCode::BackTab);
    assert_eq!(model.page, Page::Problems);
    press(&mut model, KeyCode::Char('2'));
    assert_eq!(model.page, Page::Backends);
    assert_eq!(press(&mut model, KeyCode::Char('q')), Asked::End);
    let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(model.press(interrupt), Asked::Interrupt);
}

#[test]
fn rates_are_of_the_time_between_two_reports_and_never_guessed() {
    let (mut model, mut report) = (Model::new(Style::Plain), report());
    let rate = |model: &Model| {
        let rows = model.rows().into_iter();
        let mut hello = rows.filter(|row| row.cells[0] == "www_hello");
        hello.next().unwrap().cells[3].clone()
    };
    let add = |report: &mut Report, more: u64| {
        let flows = report.services.as_mut().unwrap()[3].flows.as_mut();
        flows.unwrap().total += more;
    };
    model.apply(&report, Duration::from_secs(7));
    assert_eq!(rate(&model), "-");
    add(&mut report, 25);
    model.apply(&report, Duration::from_secs(9));
    assert_eq!(
        (rate(&model).as_str(), model.rates.back()),
        ("12.5", Some(&Some(12)))
    );
    // An agent that began anew counts anew.
    report.services.as_mut().unwrap()[3]
        .flows
        .as_mut()
        .unwrap()
        .total = 3;
    model.apply(&report, Duration::from_secs(11));
    assert_eq!(rate(&model), "-");
    model.lose("no agent answers\u{1b}".to_owned());
    let text = text(&drawn(&mut model, (80, 24)));
    assert!(text.contains("! no agent answers\\u{1b}"), "{text}");
    assert!(
        text.contains("www_hello"),
        "the last report is gone: {text}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_size_any_page_and_any_name_are_drawn(
        size in (1u16..140, 1u16..50), keys in "[\ts?/12341jk]{0,6}", name in "[\\PC\u{1b}\n\u{202e}]{0,40}",
    ) {
        let (mut model, mut report) = (Model::new(Style::Colour), report());
        report.services.as_mut().unwrap()[0].name = name.clone();
        report.problems[0].message = name;
        model.apply(&report, Duration::ZERO);
        model.apply(&report, Duration::from_secs(2));
        for key in keys.chars() {
            let code = if key == '\t' { KeyCode::Tab } else { KeyCode::Char(key) };
            press(&mut model, code);
            let buffer = drawn(&mut model, size);
            prop_assert!(!text(&buffer).chars().any(|c| c != '\n' && obeyed(c)));
        }
        // Smaller and larger again.
        drawn(&mut model, (1, 1));
        drawn(&mut model, (200, 60));
    }
}

/// The buffer as a picture.
fn svg(buffer: &Buffer) -> String {
    const WIDTH: u16 = 8;
    const HEIGHT: u16 = 17;
    let (width, height) = (
        buffer.area.width * WIDTH + 16,
        buffer.area.height * HEIGHT + 16,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\">\n\
         <title>lb-agent top</title>\n\
         <style>text{{white-space:pre}}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#16181d\"/>\n\
         <g font-family=\"monospace\" font-size=\"13\" fill=\"#d8dce4\" xml:space=\"preserve\">\n"
    );
    for (row, cells) in lines(buffer).into_iter().enumerate() {
        let y = u16::try_from(row).unwrap() * HEIGHT + 8;
        let mut x = 8;
        for part in cells.chunk_by(|a, b| a.style() == b.style()) {
            let count = u16::try_from(part.len()).unwrap();
            let text: String = part.iter().map(Cell::symbol).collect();
            let length = count * WIDTH;
            let reversed = part[0].modifier.contains(Modifier::REVERSED);
            if reversed {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{x}\" y=\"{y}\" width=\"{length}\" height=\"{HEIGHT}\" fill=\"#d8dce4\"/>"
                );
            }
            let fill = match (reversed, part[0].fg) {
                (true, _) => " fill=\"#16181d\"",
                (_, Color::Red) => " fill=\"#ff7b72\"",
                (_, Color::Yellow) => " fill=\"#e3b341\"",
                _ => "",
            };
            let bold = match part[0].modifier.contains(Modifier::BOLD) {
                true => " font-weight=\"bold\"",
                false => "",
            };
            if !text.trim().is_empty() {
                let text = text.replace('&', "&amp;").replace('<', "&lt;");
                let y = y + 13;
                let _ = writeln!(
                    svg,
                    "<text x=\"{x}\" y=\"{y}\" textLength=\"{length}\"{fill}{bold}>{text}</text>"
                );
            }
            x += length;
        }
    }
    svg + "</g>\n</svg>\n"
}
