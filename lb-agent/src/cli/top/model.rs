//! What `top` shows. Pure: reports, the clock's reading and keys come in as values.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::rows::{Row, head, of_backend, of_refusals, of_service, problems, tenths};
use crate::{
    admin::report::{Mark, Report},
    catalog::InstanceKey,
    cli::Style,
};

/// A page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Page {
    Services,
    Backends,
    Refusals,
    Problems,
}

impl Page {
    pub(super) const ALL: [Self; 4] = [
        Self::Services,
        Self::Backends,
        Self::Refusals,
        Self::Problems,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Services => "services",
            Self::Backends => "backends",
            Self::Refusals => "refusals",
            Self::Problems => "problems",
        }
    }

    fn turn(self, by: usize) -> Self {
        let all = Self::ALL;
        let at = all.iter().position(|it| *it == self).unwrap_or(0);
        all[(at + by) % all.len()]
    }
}

/// What comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Services by rate, backends by error, refusals by how many.
    Page,
    Active,
    Name,
}

impl Order {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Page => "most first",
            Self::Active => "open flows",
            Self::Name => "name",
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Page => Self::Active,
            Self::Active => Self::Name,
            Self::Name => Self::Page,
        }
    }
}

/// What a key asks for beyond what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    End,
    Interrupt,
}

/// Counts of one report, to know how many came since.
#[derive(Default)]
struct Counts {
    at: Duration,
    services: BTreeMap<String, [u64; 6]>,
    backends: BTreeMap<(String, InstanceKey), u64>,
    unknown: Option<u64>,
}

pub(super) struct Model {
    pub(super) style: Style,
    pub(super) page: Page,
    pub(super) order: Order,
    pub(super) help: bool,
    pub(super) filter: String,
    /// Whether keys are part of the filter.
    pub(super) types: bool,
    pub(super) scroll: usize,
    pub(super) head: String,
    /// Why there is no report.
    pub(super) lost: Option<String>,
    /// New flows and requests of all services in a second, the newest last; nothing where that is not known.
    pub(super) rates: VecDeque<Option<u64>>,
    pages: [Vec<Row>; 4],
    before: Option<Counts>,
}

impl Model {
    pub(super) fn new(style: Style) -> Self {
        Self {
            style,
            page: Page::Services,
            order: Order::Page,
            help: false,
            filter: String::new(),
            types: false,
            scroll: 0,
            head: String::new(),
            lost: None,
            rates: VecDeque::new(),
            pages: Default::default(),
            before: None,
        }
    }

    /// Takes a report that was had at `at`.
    pub(super) fn apply(&mut self, report: &Report, at: Duration) {
        let now = Counts::of(report, at);
        let before = self.before.take();
        // The first one has nothing to be compared with.
        let since = before.as_ref().map(|it| at.saturating_sub(it.at));
        let since = since.filter(|it| !it.is_zero());
        let before = before.unwrap_or_default();
        let rate = |then: Option<u64>, now: u64| {
            let more = now.checked_sub(then?)?;
            // In tenths: most services are slow.
            let millis = u128::from(more) * 10_000 / since?.as_millis().max(1);
            u64::try_from(millis).ok()
        };
        self.lost = None;
        self.head = head(report);
        let services = report.services.as_deref().unwrap_or_default();
        let (mut all, mut known) = (0, false);
        self.pages = Default::default();
        for service in services {
            let then = before.services.get(&service.name);
            let counts = now.services.get(&service.name).copied().unwrap_or_default();
            let rates: [Option<u64>; 6] =
                std::array::from_fn(|it| rate(then.map(|then| then[it]), counts[it]));
            let both = rates[0].unwrap_or(0).saturating_add(rates[1].unwrap_or(0));
            known |= rates[0].is_some();
            all = both.saturating_add(all);
            self.pages[0].push(of_service(service, &rates, both));
            self.pages[2].extend(of_refusals(service, &rates));
            for backend in &service.backends {
                let key = (service.name.clone(), backend.key.clone());
                let errors = now.backends.get(&key).copied().unwrap_or(0);
                let rate = rate(before.backends.get(&key).copied(), errors);
                self.pages[1].push(of_backend(service, backend, errors, rate));
            }
        }
        if let Some(unknown) = now.unknown.filter(|it| *it > 0) {
            let rate = rate(before.unknown, unknown);
            self.pages[2].push(Row {
                mark: Mark::Warning,
                cells: [
                    "(no service)",
                    "unknown",
                    &unknown.to_string(),
                    &tenths(rate),
                ]
                .map(str::to_owned)
                .into(),
                most: unknown,
                active: 0,
            });
        }
        self.pages[3] = problems(report);
        if since.is_some() {
            self.rates.push_back(known.then_some(all / 10));
        }
        while self.rates.len() > RATES {
            self.rates.pop_front();
        }
        self.before = Some(now);
    }

    /// There is no report: the last one stays.
    pub(super) fn lose(&mut self, why: String) {
        self.lost = Some(why);
    }

    /// The lines of the page that is shown, in order, as far as they match.
    pub(super) fn rows(&self) -> Vec<&Row> {
        let at = Page::ALL.iter().position(|it| *it == self.page);
        let rows = self.pages[at.unwrap_or(0)].iter();
        let matches = |row: &&Row| row.cells.iter().any(|it| it.contains(&self.filter));
        let mut rows: Vec<&Row> = rows.filter(matches).collect();
        match (self.page, self.order) {
            // The worst are first already.
            (Page::Problems, _) => {}
            (_, Order::Page) => rows.sort_by_key(|row| Reverse((row.most, row.active))),
            (_, Order::Active) => rows.sort_by_key(|row| Reverse(row.active)),
            (_, Order::Name) => rows.sort_by(|a, b| a.cells.cmp(&b.cells)),
        }
        rows
    }

    pub(super) fn press(&mut self, key: KeyEvent) -> Asked {
        if key.kind == KeyEventKind::Release {
            return Asked::Nothing;
        }
        if key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL) {
            return Asked::Interrupt;
        }
        match (self.types, key.code) {
            (true, KeyCode::Enter) => self.types = false,
            (true, KeyCode::Esc) => (self.types, self.filter) = (false, String::new()),
            (true, KeyCode::Backspace) => drop(self.filter.pop()),
            (true, KeyCode::Char(c)) => {
                self.filter.push(c);
                self.scroll = 0;
            }
            (true, _) => {}
            (false, KeyCode::Char('q')) => return Asked::End,
            (false, KeyCode::Char('?')) => self.help = !self.help,
            (false, KeyCode::Esc) if self.help => self.help = false,
            (false, KeyCode::Esc) => self.filter.clear(),
            (false, KeyCode::Char('/')) => (self.types, self.help) = (true, false),
            (false, KeyCode::Char('s')) => self.order = self.order.next(),
            (false, KeyCode::Tab) => self.turn(self.page.turn(1)),
            (false, KeyCode::BackTab) => self.turn(self.page.turn(Page::ALL.len() - 1)),
            (false, KeyCode::Char(c @ '1'..='4')) => {
                let at = c as usize - '1' as usize;
                self.turn(Page::ALL[at]);
            }
            (false, KeyCode::Up | KeyCode::Char('k')) => {
                self.scroll = self.scroll.saturating_sub(1);
            }
            (false, KeyCode::Down | KeyCode::Char('j')) => self.scroll += 1,
            (false, KeyCode::PageUp) => self.scroll = self.scroll.saturating_sub(PAGE),
            (false, KeyCode::PageDown) => self.scroll += PAGE,
            (false, KeyCode::Home) => self.scroll = 0,
            _ => {}
        }
        Asked::Nothing
    }

    fn turn(&mut self, page: Page) {
        (self.page, self.scroll) = (page, 0);
    }
}

impl Counts {
    fn of(report: &Report, at: Duration) -> Self {
        let mut counts = Self {
            at,
            unknown: report.data_plane.as_ref().map(|it| it.unknown),
            ..Self::default()
        };
        for service in report.services.iter().flatten() {
            let flows = service.flows.unwrap_or_default();
            let requests = service.http.unwrap_or_default().requests;
            let refusals = flows.refusals.by_reason().map(|(_, count)| count);
            let [no_backend, no_path, denied] = refusals;
            counts.services.insert(
                service.name.clone(),
                [
                    flows.total,
                    requests,
                    flows.refused,
                    no_backend,
                    no_path,
                    denied,
                ],
            );
            for backend in &service.backends {
                let front = backend.front.as_ref().map_or(0, |it| it.failures);
                let key = (service.name.clone(), backend.key.clone());
                counts
                    .backends
                    .insert(key, backend.failed.unwrap_or(0).saturating_add(front));
            }
        }
        counts
    }
}

/// Rates that are kept: ten minutes.
const RATES: usize = 300;
/// Lines that a page goes on.
const PAGE: usize = 10;
