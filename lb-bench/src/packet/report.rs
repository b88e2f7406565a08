//! What was measured, beside what was wanted: tables for people, and one line of JSON for programs.

use anyhow::{Context as _, Result};
use comfy_table::Table;
use serde::Serialize;

use super::{
    network::Way,
    own::{Costs, FLOWS, Subject},
    tables::{MEMBERS, SERVICES, Tables},
    ways::{PAIRS, Ratios},
};
use crate::{
    report::{span, system, table, verdict},
    server::Kind,
    statistics::Interval,
};

/// The last line of the output. Ratios are of rates: above 1 the first is faster.
#[derive(Clone, Copy, Debug, Serialize)]
struct Figures {
    established_ns: f64,
    established6_ns: f64,
    established_tunnel_ns: f64,
    established_many_flows_ns: f64,
    primitives_ns: f64,
    vip_hash_ns: f64,
    lru_hit_ns: f64,
    array_ns: f64,
    percpu_adds_ns: f64,
    established_over_primitives: f64,
    new_ns: f64,
    new_tunnel_ns: f64,
    insert_ns: f64,
    new_over_insert: f64,
    new_tunnel_over_insert: f64,
    non_vip_ns: f64,
    tcx_rr_ratio: Interval,
    tcx_crr_ratio: Interval,
    tcx_throughput_ratio: Interval,
    tcx_over_nft: Interval,
    tcx_over_nft_rr: Interval,
    tcx_over_nft_crr: Interval,
    tcx_over_nft_throughput: Interval,
    xdp_rr_ratio: Interval,
    xdp_crr_ratio: Interval,
    xdp_throughput_ratio: Interval,
    xdp_over_nft: Interval,
    xdp_over_nft_rr: Interval,
    xdp_over_nft_crr: Interval,
    xdp_over_nft_throughput: Interval,
    nft_rr_ratio: Interval,
    nft_crr_ratio: Interval,
    nft_throughput_ratio: Interval,
    control_rr_ratio: Interval,
    control_crr_ratio: Interval,
    control_throughput_ratio: Interval,
    maglev_build_ms: f64,
    publish_ms: f64,
    publish_p99_ms: f64,
    disruption: f64,
    disruption_of_10: f64,
    disruption_of_100: f64,
}

/// Everything that was measured.
pub(super) struct Report {
    figures: Figures,
    /// What was compared: the ratio and how many rounds stand behind it.
    compared: Vec<(Kind, (Way, Way), Interval, usize)>,
}

impl Report {
    /// Puts the figures together. `None` without a single round.
    pub(super) fn new(costs: &Costs, ways: &[(Kind, Ratios)], tables: &Tables) -> Option<Self> {
        let mut compared = Vec::new();
        for (kind, ratios) in ways {
            for pair in PAIRS {
                let ratio = ratios.of(pair)?.rounded();
                compared.push((*kind, pair, ratio, ratios.rounds()));
            }
        }
        let find = |kind: Kind, pair: (Way, Way)| {
            let mut all = compared.iter();
            let found = all.find(|row| (row.0, row.1) == (kind, pair));
            found.map(|row| row.2)
        };
        let rr = |above, below| find(Kind::Echo, (above, below));
        let crr = |above, below| find(Kind::Short, (above, below));
        let throughput = |above, below| find(Kind::Sink, (above, below));
        // Ahead only if it is so in both.
        let worse = |above| {
            let (rr, crr) = (rr(above, Way::Nft)?, crr(above, Way::Nft)?);
            Some(if rr.low < crr.low { rr } else { crr })
        };
        let tenth = |subject| (costs.of(subject) * 10.0).round() / 10.0;
        let figures = Figures {
            established_ns: tenth(Subject::Established),
            established6_ns: tenth(Subject::Established6),
            established_tunnel_ns: tenth(Subject::EstablishedTunnel),
            established_many_flows_ns: tenth(Subject::ManyFlows),
            primitives_ns: tenth(Subject::Primitives),
            vip_hash_ns: tenth(Subject::VipHash),
            lru_hit_ns: tenth(Subject::LruHit),
            array_ns: tenth(Subject::Array),
            percpu_adds_ns: tenth(Subject::PercpuAdds),
            established_over_primitives: thousandth(costs.established_over_primitives),
            new_ns: tenth(Subject::New),
            new_tunnel_ns: tenth(Subject::NewTunnel),
            insert_ns: tenth(Subject::Insert),
            new_over_insert: thousandth(costs.new_over_insert),
            new_tunnel_over_insert: thousandth(costs.new_tunnel_over_insert),
            non_vip_ns: tenth(Subject::NonVip),
            tcx_rr_ratio: rr(Way::Tcx, Way::Direct)?,
            tcx_crr_ratio: crr(Way::Tcx, Way::Direct)?,
            tcx_throughput_ratio: throughput(Way::Tcx, Way::Direct)?,
            tcx_over_nft: worse(Way::Tcx)?,
            tcx_over_nft_rr: rr(Way::Tcx, Way::Nft)?,
            tcx_over_nft_crr: crr(Way::Tcx, Way::Nft)?,
            tcx_over_nft_throughput: throughput(Way::Tcx, Way::Nft)?,
            xdp_rr_ratio: rr(Way::Xdp, Way::Direct)?,
            xdp_crr_ratio: crr(Way::Xdp, Way::Direct)?,
            xdp_throughput_ratio: throughput(Way::Xdp, Way::Direct)?,
            xdp_over_nft: worse(Way::Xdp)?,
            xdp_over_nft_rr: rr(Way::Xdp, Way::Nft)?,
            xdp_over_nft_crr: crr(Way::Xdp, Way::Nft)?,
            xdp_over_nft_throughput: throughput(Way::Xdp, Way::Nft)?,
            nft_rr_ratio: rr(Way::Nft, Way::Direct)?,
            nft_crr_ratio: crr(Way::Nft, Way::Direct)?,
            nft_throughput_ratio: throughput(Way::Nft, Way::Direct)?,
            control_rr_ratio: rr(Way::Again, Way::Direct)?,
            control_crr_ratio: crr(Way::Again, Way::Direct)?,
            control_throughput_ratio: throughput(Way::Again, Way::Direct)?,
            maglev_build_ms: thousandth(tables.build),
            publish_ms: thousandth(tables.publish),
            publish_p99_ms: thousandth(tables.publish_p99),
            disruption: ten_thousandth(tables.disruption_of_10.max(tables.disruption_of_100)),
            disruption_of_10: ten_thousandth(tables.disruption_of_10),
            disruption_of_100: ten_thousandth(tables.disruption_of_100),
        };
        Some(Self { figures, compared })
    }

    /// Prints the tables and, as the last line, the JSON object. `cpu` is where everything ran.
    ///
    /// # Errors
    /// When the object cannot be written.
    pub(super) fn print(&self, cpu: usize) -> Result<()> {
        println!("{}", system(cpu)?);
        println!("{}", self.costs());
        println!("{}", self.ratios());
        println!("{}", self.tables());
        let line = serde_json::to_string(&self.figures).context("cannot write the figures")?;
        println!("{line}");
        Ok(())
    }

    fn costs(&self) -> Table {
        let figures = &self.figures;
        let mut table = table(["one packet, net of an empty program", "ns", "goal", ""]);
        let mut row = |what: &str, nanoseconds: f64, goal: Option<(f64, &str)>| {
            let said = goal.map_or(String::new(), |(goal, why)| format!("{goal:.1}{why}"));
            table.add_row([
                what.to_owned(),
                format!("{nanoseconds:.1}"),
                said,
                verdict(goal.map(|(goal, _)| nanoseconds <= goal)).to_owned(),
            ]);
        };
        let (primitives, insert) = (figures.primitives_ns, figures.insert_ns);
        row("look-up of a VIP in a hash map", figures.vip_hash_ns, None);
        row("hit in the LRU map of flows", figures.lru_hit_ns, None);
        row("look-up of a backend in an array", figures.array_ns, None);
        row("three counts for each CPU", figures.percpu_adds_ns, None);
        row("all of these primitives", primitives, None);
        let goal = (1.6 * primitives, " (1.6 of the primitives)");
        row(
            "established flow, full NAT",
            figures.established_ns,
            Some(goal),
        );
        row("the same, IPv6", figures.established6_ns, None);
        row("the same, in a tunnel", figures.established_tunnel_ns, None);
        let many = format!("the same, {FLOWS} flows in turn");
        row(&many, figures.established_many_flows_ns, None);
        row("insert into a full LRU map", insert, None);
        let goal = (1.4 * insert, " (1.4 of the insert)");
        row("new flow, full NAT", figures.new_ns, Some(goal));
        row("new flow, in a tunnel", figures.new_tunnel_ns, Some(goal));
        row("for nobody of ours", figures.non_vip_ns, Some((25.0, "")));
        table
    }

    fn ratios(&self) -> Table {
        let mut table = table([
            "one way over another",
            "median",
            "95 %",
            "goal",
            "",
            "rounds",
        ]);
        for &(kind, (above, below), ratio, rounds) in &self.compared {
            let (goal, met) = goal(kind, above, below, ratio);
            let what = match kind {
                Kind::Short => "connect+request+close",
                Kind::Echo => "request/response",
                _ => "throughput",
            };
            table.add_row([
                format!("{what}, {} over {}", above.name(), below.name()),
                format!("{:.4}", ratio.median),
                span(ratio),
                goal.to_owned(),
                verdict(met).to_owned(),
                rounds.to_string(),
            ]);
        }
        table
    }

    fn tables(&self) -> Table {
        let figures = &self.figures;
        let mut table = table(["tables", "", "goal", ""]);
        let mut row = |what: String, measured: f64, unit: &str, goal: Option<f64>| {
            table.add_row([
                what,
                format!("{measured:.3}{unit}"),
                goal.map_or(String::new(), |goal| format!("{goal}{unit}")),
                verdict(goal.map(|goal| measured <= goal)).to_owned(),
            ]);
        };
        row(
            format!("making one for {MEMBERS} backends"),
            figures.maglev_build_ms,
            " ms",
            Some(3.0),
        );
        row(
            format!("publishing one change among {SERVICES} services"),
            figures.publish_ms,
            " ms",
            Some(1.0),
        );
        row(
            "the same, 99th percentile".to_owned(),
            figures.publish_p99_ms,
            " ms",
            None,
        );
        for (count, disruption) in [
            (10, figures.disruption_of_10),
            (100, figures.disruption_of_100),
        ] {
            let what = format!("moved beyond its own, at the loss of one of {count}");
            row(what, disruption * 100.0, " %", Some(1.0));
        }
        table
    }
}

/// What is wanted of one way over another, and whether it is so.
fn goal(kind: Kind, above: Way, below: Way, ratio: Interval) -> (&'static str, Option<bool>) {
    match (kind, above, below) {
        (Kind::Echo, Way::Tcx, Way::Direct) => ("interval reaches 0.95", Some(ratio.high >= 0.95)),
        (Kind::Short, Way::Tcx, Way::Direct) => ("interval reaches 0.90", Some(ratio.high >= 0.90)),
        (Kind::Echo | Kind::Short, Way::Tcx, Way::Nft) => {
            ("interval above 1.0", Some(ratio.low > 1.0))
        }
        _ => ("", None),
    }
}

fn thousandth(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

fn ten_thousandth(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}
