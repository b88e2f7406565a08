//! What was measured, beside what was wanted: a table for people, and one line of JSON for programs.

use anyhow::{Context as _, Result};
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use nix::{
    sys::utsname::uname,
    unistd::{SysconfVar, sysconf},
};
use serde::Serialize;

use crate::{
    costs::Costs,
    ratios::{Comparison, Rounds},
    rivals::Rival,
    statistics::Interval,
};

/// The last line of the output. Ratios are of the VIP over direct, or with the hooks over without.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    throughput_ratio: Interval,
    rr_ratio: Interval,
    crr_ratio: Interval,
    bystander_ratio: Interval,
    udp_ratio: Interval,
    udp_unconnected_ratio: Interval,
    ipv6_ratio: Interval,
    rr_at_10000_services: Interval,
    crr_at_10000_services: Interval,
    bystander_at_10000_services: Interval,
    throughput_over_haproxy_tcp: Interval,
    rr_over_haproxy_tcp: Interval,
    crr_over_haproxy_tcp: Interval,
    ipv6_over_haproxy_tcp: Interval,
    throughput_over_nft: Interval,
    rr_over_nft: Interval,
    crr_over_nft: Interval,
    udp_over_nft: Interval,
    udp_unconnected_over_nft: Interval,
    ipv6_over_nft: Interval,
    hook_ns: f64,
    record_ns: f64,
    miss_ns: f64,
    getpeername_ns: f64,
    sock_release_ns: f64,
    sock_ops_ns: f64,
    bystander_ns: f64,
    connect6_ns: f64,
    getpeername6_ns: f64,
    sendmsg4_ns: f64,
    recvmsg4_ns: f64,
    runs_during_transfer: u64,
    hook_ns_at_10000_services: f64,
    record_ns_at_10000_services: f64,
    miss_ns_at_10000_services: f64,
    bystander_ns_at_10000_services: f64,
    runs_during_transfer_at_10000_services: u64,
}

/// Everything that was measured.
pub(crate) struct Report {
    figures: Figures,
    comparisons: Vec<Compared>,
}

/// What stands behind one ratio.
struct Compared {
    comparison: Comparison,
    /// Over whom, unless it is over the direct way.
    rival: Option<Rival>,
    ratio: Interval,
    control: Interval,
    rounds: usize,
}

impl Report {
    /// Puts the figures together: the ratios, and the programs' own times and runs among few services and among many.
    /// `None` without a single round.
    pub(crate) fn new(
        results: &[(Comparison, Rounds)],
        (costs, runs_during_transfer): &(Costs, u64),
        (costs_among_many, runs_among_many): &(Costs, u64),
    ) -> Option<Self> {
        let mut comparisons = Vec::new();
        for (comparison, rounds) in results {
            let rivals = comparison.rivals().iter().copied().map(Some);
            for rival in [None].into_iter().chain(rivals) {
                let ratio = match rival {
                    None => rounds.ratio()?,
                    Some(rival) => rounds.over(rival)?,
                };
                comparisons.push(Compared {
                    comparison: *comparison,
                    rival,
                    ratio: ratio.rounded(),
                    control: rounds.control()?.rounded(),
                    rounds: rounds.len(),
                });
            }
        }
        let find = |comparison: Comparison, rival: Option<Rival>| {
            let mut all = comparisons.iter();
            let found = all.find(|row| (row.comparison, row.rival) == (comparison, rival));
            found.map(|compared| compared.ratio)
        };
        let ratio = |comparison| find(comparison, None);
        let over_haproxy = |comparison| find(comparison, Some(Rival::Haproxy));
        let over_nft = |comparison| find(comparison, Some(Rival::Nft));
        let tenth = |nanoseconds: f64| (nanoseconds * 10.0).round() / 10.0;
        let figures = Figures {
            throughput_ratio: ratio(Comparison::Throughput)?,
            rr_ratio: ratio(Comparison::RequestResponse)?,
            crr_ratio: ratio(Comparison::ConnectRequestClose)?,
            bystander_ratio: ratio(Comparison::Bystander)?,
            udp_ratio: ratio(Comparison::Datagrams)?,
            udp_unconnected_ratio: ratio(Comparison::UnconnectedDatagrams)?,
            ipv6_ratio: ratio(Comparison::Ipv6)?,
            rr_at_10000_services: ratio(Comparison::RequestResponseAmongMany)?,
            crr_at_10000_services: ratio(Comparison::ConnectRequestCloseAmongMany)?,
            bystander_at_10000_services: ratio(Comparison::BystanderAmongMany)?,
            throughput_over_haproxy_tcp: over_haproxy(Comparison::Throughput)?,
            rr_over_haproxy_tcp: over_haproxy(Comparison::RequestResponse)?,
            crr_over_haproxy_tcp: over_haproxy(Comparison::ConnectRequestClose)?,
            ipv6_over_haproxy_tcp: over_haproxy(Comparison::Ipv6)?,
            throughput_over_nft: over_nft(Comparison::Throughput)?,
            rr_over_nft: over_nft(Comparison::RequestResponse)?,
            crr_over_nft: over_nft(Comparison::ConnectRequestClose)?,
            udp_over_nft: over_nft(Comparison::Datagrams)?,
            udp_unconnected_over_nft: over_nft(Comparison::UnconnectedDatagrams)?,
            ipv6_over_nft: over_nft(Comparison::Ipv6)?,
            hook_ns: tenth(costs.hook),
            record_ns: tenth(costs.record),
            miss_ns: tenth(costs.miss),
            getpeername_ns: tenth(costs.getpeername),
            sock_release_ns: tenth(costs.sock_release),
            sock_ops_ns: tenth(costs.sock_ops),
            bystander_ns: tenth(costs.bystander),
            connect6_ns: tenth(costs.connect6),
            getpeername6_ns: tenth(costs.getpeername6),
            sendmsg4_ns: tenth(costs.sendmsg),
            recvmsg4_ns: tenth(costs.recvmsg),
            runs_during_transfer: *runs_during_transfer,
            hook_ns_at_10000_services: tenth(costs_among_many.hook),
            record_ns_at_10000_services: tenth(costs_among_many.record),
            miss_ns_at_10000_services: tenth(costs_among_many.miss),
            bystander_ns_at_10000_services: tenth(costs_among_many.bystander),
            runs_during_transfer_at_10000_services: *runs_among_many,
        };
        Some(Self {
            figures,
            comparisons,
        })
    }

    /// Prints the table and, as the last line, the JSON object. `cpu` is where everything ran.
    ///
    /// # Errors
    /// When the object cannot be written.
    pub(crate) fn print(&self, cpu: usize) -> Result<()> {
        println!("{}", system(cpu)?);
        println!("{}", self.ratios());
        println!("{}", self.costs());
        println!("{}", self.costs_among_many());
        let line = serde_json::to_string(&self.figures).context("cannot write the figures")?;
        println!("{line}");
        Ok(())
    }

    fn ratios(&self) -> Table {
        let mut table = table([
            "VIP over direct, or over what is named",
            "median",
            "95 %",
            "goal",
            "",
            "control",
            "95 %",
            "rounds",
        ]);
        for compared in &self.comparisons {
            let ratio = compared.ratio;
            let (goal, met) = match (compared.rival, compared.comparison) {
                (Some(_), _) => ("interval above 1.0", Some(ratio.low > 1.0)),
                (_, Comparison::RequestResponse | Comparison::RequestResponseAmongMany) => {
                    ("interval reaches 1.0", Some(ratio.high >= 1.0))
                }
                (_, Comparison::ConnectRequestClose | Comparison::ConnectRequestCloseAmongMany) => {
                    (
                        "interval reaches 0.97, at most 0.03 wide",
                        Some(ratio.high >= 0.97 && ratio.width() <= 0.03),
                    )
                }
                _ => ("", None),
            };
            let name = compared.comparison.name();
            table.add_row([
                match compared.rival {
                    None => name.to_owned(),
                    Some(rival) => format!("{name}, over {}", rival.name()),
                },
                format!("{:.4}", ratio.median),
                span(ratio),
                goal.to_owned(),
                verdict(met).to_owned(),
                format!("{:.4}", compared.control.median),
                span(compared.control),
                compared.rounds.to_string(),
            ]);
        }
        table
    }

    fn costs(&self) -> Table {
        let figures = &self.figures;
        let mut table = judged(
            "net of an empty program",
            [
                figures.hook_ns,
                figures.record_ns,
                figures.miss_ns,
                figures.bystander_ns,
            ],
            figures.runs_during_transfer,
        );
        for (what, nanoseconds) in [
            ("getpeername4, of a VIP's client", figures.getpeername_ns),
            ("sock_release, of a VIP's client", figures.sock_release_ns),
            ("sock_ops, each run of a VIP's client", figures.sock_ops_ns),
            ("connect6, to an IPv6 VIP", figures.connect6_ns),
            ("getpeername6, of its client", figures.getpeername6_ns),
            ("sendmsg4, a datagram to a VIP", figures.sendmsg4_ns),
            ("recvmsg4, its answer", figures.recvmsg4_ns),
        ] {
            table.add_row([what.to_owned(), format!("{nanoseconds:.1}")]);
        }
        table
    }

    fn costs_among_many(&self) -> Table {
        let figures = &self.figures;
        judged(
            "the same, 10,000 services",
            [
                figures.hook_ns_at_10000_services,
                figures.record_ns_at_10000_services,
                figures.miss_ns_at_10000_services,
                figures.bystander_ns_at_10000_services,
            ],
            figures.runs_during_transfer_at_10000_services,
        )
    }
}

/// A table of the figures that have goals.
fn judged(heading: &str, [hook, record, miss, bystander]: [f64; 4], runs: u64) -> Table {
    let mut table = table([heading, "ns", "goal", ""]);
    for (what, nanoseconds, goal, met) in [
        (
            "connect4, to a VIP",
            hook,
            format!("{:.1} (1.3 of the record's)", 1.3 * record),
            Some(hook <= 1.3 * record),
        ),
        (
            "a program that only makes the record",
            record,
            String::new(),
            None,
        ),
        (
            "connect4, outside the pool",
            miss,
            "20".to_owned(),
            Some(miss <= 20.0),
        ),
        (
            "all hooks, a bystander's connection, both ends",
            bystander,
            "300".to_owned(),
            Some(bystander <= 300.0),
        ),
    ] {
        table.add_row([
            what.to_owned(),
            format!("{nanoseconds:.1}"),
            goal,
            verdict(met).to_owned(),
        ]);
    }
    table.add_row([
        "runs of any program while 1 GiB flows".to_owned(),
        format!("{runs} runs"),
        "0 runs".to_owned(),
        verdict(Some(runs == 0)).to_owned(),
    ]);
    table
}

/// What everything was measured on; `cpu` is where it ran.
///
/// # Errors
/// When the system does not say.
pub(crate) fn system(cpu: usize) -> Result<String> {
    let system = uname().context("cannot read the kernel's version")?;
    let cpus = sysconf(SysconfVar::_NPROCESSORS_ONLN).context("cannot count the CPUs")?;
    Ok(format!(
        "Linux {} {}, {} CPUs, everything on CPU {cpu}",
        system.release().to_string_lossy(),
        system.machine().to_string_lossy(),
        cpus.unwrap_or(1),
    ))
}

pub(crate) fn table<const COLUMNS: usize>(heading: [&str; COLUMNS]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(heading);
    table
}

pub(crate) fn span(interval: Interval) -> String {
    format!("{:.4} to {:.4}", interval.low, interval.high)
}

pub(crate) fn verdict(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "",
    }
}
