//! Plots of a record as SVG: each ratio as a bar from 1.0, with its interval and its goal, and each figure that has a goal over
//! that goal. Pure: the same record makes the same bytes.

use anyhow::{Result, anyhow};
use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Color as _, DrawingArea, IntoDrawingArea as _, IntoFont as _, PathElement,
        RGBColor, Rectangle, SVGBackend, ShapeStyle, Text,
    },
    style::text_anchor::{HPos, Pos, VPos},
};

use super::{
    record::Record,
    sheet::{Better, number},
    sheets::Name,
};

/// What is drawn.
pub(super) struct Plot {
    /// The name of the file.
    pub(super) file: String,
    title: String,
    bars: Vec<Bar>,
}

/// One ratio.
#[derive(Clone, Debug, PartialEq)]
struct Bar {
    label: String,
    median: f64,
    /// Where the median lies, if that is known.
    interval: Option<[f64; 2]>,
    goal: Option<f64>,
    better: Better,
}

/// The plots of a record: of its ratios, and of what else has a goal.
///
/// # Errors
/// When the record lacks a figure.
pub(super) fn of(name: Name, record: &Record) -> Result<Vec<Plot>> {
    let sheet = name.sheet();
    let mut ratios = Vec::new();
    for ratio in &sheet.ratios {
        let value = ratio.value(&record.figures)?;
        ratios.push(Bar {
            label: format!("{}, {}", ratio.what, ratio.column()),
            median: value.median,
            interval: Some([value.low, value.high]),
            goal: ratio.goal.map(super::sheet::Goal::line),
            better: ratio.better,
        });
    }
    let mut goals = Vec::new();
    for (table, row) in
        (sheet.tables.iter()).flat_map(|it| it.rows.iter().map(|row| (it.name, row)))
    {
        let (Some(first), Some(most)) = (row.keys.first(), row.most(&record.figures)?) else {
            continue;
        };
        // What should be none has no ratio.
        let measured = number(&record.figures, first)?.filter(|it| *it > 0.0 && most > 0.0);
        if let Some(measured) = measured {
            goals.push(Bar {
                label: format!("{table}: {}", row.what).replace('`', ""),
                median: measured / most,
                interval: None,
                goal: None,
                better: Better::Less,
            });
        }
    }
    let word = name.word();
    let origin = format!("Linux {}, {}", record.kernel, record.date);
    let plots = [
        (
            format!("{word}.svg"),
            format!("{word}: ratios. {origin}"),
            ratios,
        ),
        (
            format!("{word}-goals.svg"),
            format!("{word}: figures over their goals, less is better. {origin}"),
            goals,
        ),
    ];
    let plots = plots.into_iter().filter(|(_, _, bars)| !bars.is_empty());
    Ok(plots
        .map(|(file, title, bars)| Plot { file, title, bars })
        .collect())
}

impl Plot {
    /// What it shows, for whoever cannot see it.
    pub(super) fn alternative(&self) -> String {
        let bars = self.bars.iter();
        let bars = bars.map(|it| format!("{} {:.2}", it.label, it.median));
        format!(
            "Bars. {}. {}",
            self.title,
            bars.collect::<Vec<_>>().join("; ")
        )
    }

    /// The picture.
    ///
    /// # Errors
    /// When it cannot be drawn.
    pub(super) fn svg(&self) -> Result<String> {
        let mut svg = String::new();
        let rows = u32::try_from(self.bars.len())?;
        let size = (WIDTH, HEAD + FOOT + rows * ROW);
        // An error of this library borrows what is drawn on.
        self.draw(&SVGBackend::with_string(&mut svg, size).into_drawing_area())
            .map_err(|error| anyhow!("cannot draw {}: {error:#}", self.file))?;
        Ok(svg)
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Result<()> {
        // A ground of its own: the page behind it may be light or dark.
        area.fill(&GROUND)?;
        let text = |size: u32| ("sans-serif", size).into_font().color(&INK);
        area.draw(&Text::new(self.title.clone(), (12, 8), text(17)))?;
        area.draw(&Text::new(LEGEND, (12, 32), text(12)))?;
        let range = self.range();
        let count = f64::from(u32::try_from(self.bars.len())?);
        let chart = ChartBuilder::on(area)
            .margin_top(i32::try_from(HEAD)?)
            .margin_right(24)
            .x_label_area_size(FOOT)
            .y_label_area_size(LABELS)
            .build_cartesian_2d(range[0].ln()..range[1].ln(), 0.0..count)?;
        let plane = chart.plotting_area();
        for mark in ticks(range) {
            let at = mark.ln();
            plane.draw(&PathElement::new(vec![(at, 0.0), (at, count)], GRID))?;
            let (x, y) = chart.backend_coord(&(at, 0.0));
            let style = text(12).pos(Pos::new(HPos::Center, VPos::Top));
            area.draw(&Text::new(format!("{mark:.2}"), (x, y + 6), style))?;
        }
        for (at, bar) in self.bars.iter().enumerate() {
            let middle = self.middle(at);
            let line = |from: (f64, f64), to: (f64, f64), style: ShapeStyle| {
                plane.draw(&PathElement::new(vec![from, to], style))
            };
            let (x, y) = chart.backend_coord(&(range[0].ln(), middle));
            let style = text(12).pos(Pos::new(HPos::Right, VPos::Center));
            let is_within = range[0] <= bar.median && bar.median <= range[1];
            let beyond = if is_within { "" } else { " (beyond)" };
            let label = format!("{} {:.3}{beyond}", bar.label, bar.median);
            area.draw(&Text::new(label, (x - 10, y), style))?;
            // As far as there is room.
            let at_most = |ratio: f64| ratio.clamp(range[0], range[1]).ln();
            let end = (at_most(bar.median), middle + 0.32);
            let begin = (0.0, middle - 0.32);
            plane.draw(&Rectangle::new([begin, end], bar.colour().filled()))?;
            if let Some([low, high]) = bar.interval.filter(|_| is_within) {
                let [low, high] = [low, high].map(at_most);
                line((low, middle), (high, middle), INK.stroke_width(1))?;
                for end in [low, high] {
                    line(
                        (end, middle - 0.18),
                        (end, middle + 0.18),
                        INK.stroke_width(1),
                    )?;
                }
            }
            if let Some(goal) = bar.goal {
                let goal = at_most(goal);
                line(
                    (goal, middle - 0.45),
                    (goal, middle + 0.45),
                    GOAL.stroke_width(3),
                )?;
            }
        }
        let one = vec![(0.0, 0.0), (0.0, count)];
        plane.draw(&PathElement::new(one, INK.stroke_width(2)))?;
        area.present()?;
        Ok(())
    }

    /// The first is at the top.
    fn middle(&self, at: usize) -> f64 {
        let below = self.bars.len() - 1 - at;
        u32::try_from(below).map_or(0.0, f64::from) + 0.5
    }

    /// What has to be seen, with some room: one that is far from all others must not make these unreadable.
    fn range(&self) -> [f64; 2] {
        let values = self.bars.iter().flat_map(|bar| {
            let ends = bar.interval.unwrap_or([bar.median; 2]);
            [bar.median, bar.goal.unwrap_or(1.0), ends[0], ends[1]]
        });
        let [mut low, mut high] = [1.0_f64, 1.0];
        for value in values {
            low = low.min(value);
            high = high.max(value);
        }
        [
            (low / 1.04).clamp(0.6, 0.94),
            (high * 1.04).clamp(1.06, 2.6),
        ]
    }
}

impl Bar {
    fn colour(&self) -> RGBColor {
        let is_good = match self.better {
            Better::More => self.median >= 1.0,
            Better::Less => self.median <= 1.0,
            Better::Neither => return OTHER,
        };
        if is_good { GOOD } else { BAD }
    }
}

/// The marks below the plot that lie in the range: not so many that they touch.
fn ticks([low, high]: [f64; 2]) -> Vec<f64> {
    let fine = [
        0.9, 0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08, 1.1,
    ];
    let coarse = [
        0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.4,
        1.6, 1.8, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0, 20.0, 50.0, 100.0,
    ];
    let marks: &[f64] = if high / low < 1.25 { &fine } else { &coarse };
    let mut chosen = vec![1.0];
    // From the middle outwards; a label is about a twentieth of the width.
    let room = (high / low).ln() / 14.0;
    let is_within = |mark: f64| low <= mark && mark <= high;
    let below = marks.iter().rev().filter(|it| **it < 1.0);
    let above = marks.iter().filter(|it| **it > 1.0);
    for &mark in below.chain(above).filter(|it| is_within(**it)) {
        let is_free = |other: &f64| (mark / *other).ln().abs() >= room;
        if chosen.iter().all(is_free) {
            chosen.push(mark);
        }
    }
    chosen.sort_by(f64::total_cmp);
    chosen
}

const WIDTH: u32 = 960;
const HEAD: u32 = 56;
const FOOT: u32 = 30;
const ROW: u32 = 22;
const LABELS: u32 = 400;

const LEGEND: &str = "Logarithmic. Blue: better than 1.0. Orange: worse. Grey: not ours. Thin black: 95 %. Thick purple: the goal.";

// Told apart by who does not see red or green as well.
const GROUND: RGBColor = RGBColor(252, 252, 250);
const INK: RGBColor = RGBColor(30, 30, 30);
const GRID: RGBColor = RGBColor(215, 215, 215);
const GOOD: RGBColor = RGBColor(86, 150, 205);
const BAD: RGBColor = RGBColor(230, 145, 56);
const OTHER: RGBColor = RGBColor(170, 170, 170);
const GOAL: RGBColor = RGBColor(120, 40, 130);

#[cfg(test)]
mod tests {
    use super::*;

    fn bar(median: f64, better: Better) -> Bar {
        Bar {
            label: format!("of {median}"),
            median,
            interval: Some([median * 0.99, median * 1.01]),
            goal: Some(1.15),
            better,
        }
    }

    fn plot(bars: &[Bar]) -> Plot {
        Plot {
            file: "it.svg".to_owned(),
            title: "it".to_owned(),
            bars: bars.to_vec(),
        }
    }

    #[test]
    fn every_bar_is_drawn_with_its_value_and_what_is_far_away_does_not_hide_the_rest() {
        let plot = plot(&[
            bar(0.96, Better::More),
            bar(1.07, Better::More),
            bar(0.1, Better::Less),
        ]);
        let svg = plot.svg().unwrap();
        for said in [
            "of 0.96 0.960",
            "of 1.07 1.070",
            "of 0.1 0.100 (beyond)",
            "0.90",
            "1.00",
        ] {
            assert!(svg.contains(said), "{said}: {svg}");
        }
        assert_eq!(plot.range()[0], 0.6);
        assert_eq!(plot.svg().unwrap(), svg);
    }

    #[test]
    fn the_colour_says_whether_it_is_good() {
        assert_eq!(bar(1.1, Better::More).colour(), GOOD);
        assert_eq!(bar(1.1, Better::Less).colour(), BAD);
        assert_eq!(bar(0.9, Better::More).colour(), BAD);
        assert_eq!(bar(0.9, Better::Less).colour(), GOOD);
        assert_eq!(bar(0.9, Better::Neither).colour(), OTHER);
    }

    #[test]
    fn marks_lie_in_the_range_do_not_touch_and_1_is_always_one() {
        for range in [[0.94, 1.06], [0.6, 2.6], [0.8, 1.06], [0.94, 1.3]] {
            let ticks = ticks(range);
            assert!(
                ticks.contains(&1.0) && ticks.len() > 2,
                "{range:?}: {ticks:?}"
            );
            for pair in ticks.windows(2) {
                assert!(pair[1] / pair[0] > 1.005, "{range:?}: {ticks:?}");
            }
            let [low, high] = range;
            assert!(
                ticks.iter().all(|it| low <= *it && *it <= high),
                "{ticks:?}"
            );
        }
    }

    #[test]
    fn who_cannot_see_it_is_told_what_it_shows() {
        let said = plot(&[bar(0.96, Better::More)]).alternative();
        assert_eq!(said, "Bars. it. of 0.96 0.96");
    }
}
