//! Records as Markdown: the figures of one, and all of them side by side with what is lost and missed. Pure.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::{
    plot::{self, Plot},
    record::Record,
    sheet::{Better, Goal, Interval, Most, Over, Ratio, Row, Sheet, Table, number},
    sheets::Name,
};

/// The figures of one subject, with its plots, from a folder of this name.
///
/// # Errors
/// When the record and the sheet do not agree.
pub(super) fn of(name: Name, record: &Record, folder: &str) -> Result<String> {
    let sheet = name.sheet();
    sheet
        .check(&record.figures)
        .with_context(|| format!("the record of {} is another one", name.word()))?;
    let mut text = format!("{}\n", record.origin());
    if !sheet.ratios.is_empty() {
        text.push('\n');
        ratios(&mut text, &sheet, record)?;
    }
    for table in &sheet.tables {
        text.push('\n');
        numbers(&mut text, table, record)?;
    }
    for plot in plot::of(name, record)? {
        let Plot { file, .. } = &plot;
        let _ = write!(text, "\n![{}]({folder}/{file})\n", plot.alternative());
    }
    Ok(text)
}

fn ratios(text: &mut String, sheet: &Sheet, record: &Record) -> Result<()> {
    let columns = distinct(sheet.ratios.iter().map(Ratio::column));
    head(text, "ratio", columns.iter().map(String::as_str));
    for what in distinct(sheet.ratios.iter().map(|it| it.what)) {
        let _ = write!(text, "| {what} |");
        for column in &columns {
            let mut all = sheet.ratios.iter();
            let found = all.find(|it| it.what == what && it.column() == *column);
            let _ = match found {
                Some(ratio) => write!(text, " {} |", cell(ratio, ratio.value(&record.figures)?)),
                None => write!(text, " |"),
            };
        }
        text.push('\n');
    }
    text.push_str("\nMedians with their 95 % intervals. **Bold** is worse than what it is held against, with its whole interval.");
    let less: Vec<_> = sheet
        .ratios
        .iter()
        .filter(|it| it.better == Better::Less)
        .collect();
    if !less.is_empty() {
        let of = distinct(less.iter().map(|it| it.of)).join(" and ");
        let _ = write!(text, " Of {of} less is better.");
    }
    text.push('\n');
    let mut goals: Vec<(String, Vec<String>)> = Vec::new();
    for ratio in &sheet.ratios {
        let Some(goal) = ratio.goal else { continue };
        let is_met = ratio.is_met(ratio.value(&record.figures)?) == Some(true);
        let verdict = if is_met { "met" } else { "**missed**" };
        let said = format!("{}, {}: {verdict}", ratio.what, ratio.column());
        let goal = wanted(goal, ratio.better);
        match goals.iter_mut().find(|(it, _)| *it == goal) {
            Some((_, all)) => all.push(said),
            None => goals.push((goal, vec![said])),
        }
    }
    if !goals.is_empty() {
        text.push_str("\nGoals of these:\n\n");
    }
    for (goal, all) in goals {
        let _ = writeln!(text, "* {goal}: {}.", all.join("; "));
    }
    Ok(())
}

fn wanted(goal: Goal, better: Better) -> String {
    match (goal, better) {
        (Goal::Reaches(line), Better::Less) => format!("the interval begins at {line:?} at most"),
        (Goal::Reaches(line), _) => format!("the interval reaches {line:?}"),
        (Goal::Beyond(line), Better::Less) => format!("the interval is below {line:?}"),
        (Goal::Beyond(line), _) => format!("the interval is above {line:?}"),
    }
}

fn cell(ratio: &Ratio, value: Interval) -> String {
    let Interval { median, low, high } = value;
    let mark = if ratio.is_lost(value) { "**" } else { "" };
    format!("{mark}{median:.3}{mark} [{low:.3}, {high:.3}]")
}

fn numbers(text: &mut String, table: &Table, record: &Record) -> Result<()> {
    let has_goals = table.rows.iter().any(|it| it.goal.is_some());
    let goals: &[&str] = if has_goals { &["goal", ""] } else { &[] };
    head(text, table.name, table.head.iter().chain(goals).copied());
    for row in &table.rows {
        let _ = write!(text, "| {} |", row.what);
        for key in &row.keys {
            let value = number(&record.figures, key)?;
            let shown = value.map_or("not measured".to_owned(), |it| row.unit.show(it));
            let _ = write!(text, " {shown} |");
        }
        if has_goals {
            let [goal, verdict] = judged(row, record)?;
            let _ = write!(text, " {goal} | {verdict} |");
        }
        text.push('\n');
    }
    Ok(())
}

/// The goal and what became of it.
fn judged(row: &Row, record: &Record) -> Result<[String; 2]> {
    let Some(goal) = row.goal else {
        return Ok([String::new(), String::new()]);
    };
    let most = row.most(&record.figures)?;
    let shown = most.map_or("unknown".to_owned(), |it| row.unit.show(it));
    let shown = match goal {
        Most::Number(_) => shown,
        Most::Of { said, .. } => format!("{shown}: {said}"),
    };
    let verdict = match is_met(row, record)? {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "unknown",
    };
    Ok([shown, verdict.to_owned()])
}

fn is_met(row: &Row, record: &Record) -> Result<Option<bool>> {
    let Some(first) = row.keys.first() else {
        return Ok(None);
    };
    let measured = number(&record.figures, first)?;
    let most = row.most(&record.figures)?;
    Ok(measured.zip(most).map(|(measured, most)| measured <= most))
}

/// All records side by side, what is lost, and which goals are missed.
///
/// # Errors
/// As [`of`].
pub(super) fn overview(records: &[(Name, Record)]) -> Result<String> {
    let mut text = String::new();
    beside(&mut text, records)?;
    lost(&mut text, records)?;
    missed(&mut text, records)?;
    let kept = |name: &Name| records.iter().any(|(it, _)| it == name);
    let absent: Vec<_> = Name::ALL.into_iter().filter(|it| !kept(it)).collect();
    if !absent.is_empty() {
        let absent: Vec<_> = absent.into_iter().map(Name::word).collect();
        let _ = write!(
            text,
            "\nWithout a record, so not in these tables but below: {}.\n",
            absent.join(", ")
        );
    }
    Ok(text)
}

fn beside(text: &mut String, records: &[(Name, Record)]) -> Result<()> {
    head(text, "ours over", Over::ALL.map(Over::name).into_iter());
    for (name, record) in records {
        let sheet = name.sheet();
        let ours: Vec<_> = sheet
            .ratios
            .iter()
            .filter(|it| it.better != Better::Neither)
            .collect();
        for (what, of) in distinct(ours.iter().map(|it| (it.what, it.of))) {
            let _ = write!(text, "| {}: {what}", name.word());
            if !of.is_empty() {
                let _ = write!(text, ", {of}");
            }
            let here = || ours.iter().filter(|it| (it.what, it.of) == (what, of));
            if here().any(|it| it.better == Better::Less) {
                text.push_str(" (less is better)");
            }
            text.push_str(" |");
            for over in Over::ALL {
                let _ = match here().find(|it| it.over == over) {
                    Some(ratio) => {
                        write!(text, " {} |", cell(ratio, ratio.value(&record.figures)?))
                    }
                    None => write!(text, " |"),
                };
            }
            text.push('\n');
        }
    }
    Ok(())
}

fn lost(text: &mut String, records: &[(Name, Record)]) -> Result<()> {
    let mut lost = Vec::new();
    for (name, record) in records {
        for ratio in name.sheet().ratios {
            let value = ratio.value(&record.figures)?;
            if ratio.is_lost(value) {
                lost.push((value.median.ln().abs(), *name, ratio, value));
            }
        }
    }
    lost.sort_by(|a, b| b.0.total_cmp(&a.0));
    text.push_str("\nWhat is lost, the most first:\n\n");
    for (_, name, ratio, value) in &lost {
        let line = format!("{}: {}, {}", name.word(), ratio.what, ratio.column());
        let percent = (value.median - 1.0) * 100.0;
        let _ = writeln!(text, "* {line}: {percent:+.1} %");
    }
    if lost.is_empty() {
        text.push_str("* nothing\n");
    }
    Ok(())
}

fn missed(text: &mut String, records: &[(Name, Record)]) -> Result<()> {
    let (mut met, mut missed) = (0, Vec::new());
    for (name, record) in records {
        let sheet = name.sheet();
        for ratio in &sheet.ratios {
            match ratio.is_met(ratio.value(&record.figures)?) {
                Some(true) => met += 1,
                Some(false) => missed.push(format!(
                    "{}: {}, {}",
                    name.word(),
                    ratio.what,
                    ratio.column()
                )),
                None => {}
            }
        }
        for row in sheet.tables.iter().flat_map(|it| &it.rows) {
            match is_met(row, record)? {
                Some(true) => met += 1,
                Some(false) => {
                    let [goal, _] = judged(row, record)?;
                    let first = row
                        .keys
                        .first()
                        .map_or(Ok(None), |it| number(&record.figures, it))?;
                    let first = first.map_or(String::new(), |it| row.unit.show(it));
                    missed.push(format!("{}: {}: {first} for {goal}", name.word(), row.what));
                }
                None => {}
            }
        }
    }
    let _ = write!(text, "\nGoals that are missed, while {met} are met:\n\n");
    for line in &missed {
        let _ = writeln!(text, "* {line}");
    }
    if missed.is_empty() {
        text.push_str("* none\n");
    }
    Ok(())
}

fn head<'t>(text: &mut String, first: &str, columns: impl Iterator<Item = &'t str>) {
    let columns: Vec<_> = columns.collect();
    let _ = writeln!(text, "| {first} | {} |", columns.join(" | "));
    let _ = writeln!(text, "|---|{}", "---|".repeat(columns.len()));
}

/// Each once, in the order of their first places.
fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut distinct = Vec::new();
    for it in all {
        if !distinct.contains(&it) {
            distinct.push(it);
        }
    }
    distinct
}
