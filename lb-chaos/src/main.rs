//! The program behind `cargo xtask chaos` and `cargo xtask soak`.

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, builder::RangedU64ValueParser, value_parser};
use lb_chaos::{Programs, backend, client, hostile, run, soak};

/// What must hold while things fail.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Fault after fault, by a seed. Needs root.
    Chaos {
        /// The same seed has the same faults; one is chosen and printed otherwise.
        #[arg(long)]
        seed: Option<u64>,
        /// No step begins after this time.
        #[arg(long, default_value_t = 10, value_parser = minutes())]
        minutes: u64,
    },
    /// Load and steady changes: nothing may grow. Needs root.
    Soak {
        /// How long it is watched.
        #[arg(long, default_value_t = 10, value_parser = minutes())]
        minutes: u64,
    },
    /// A backend of the cluster.
    #[command(hide = true)]
    Backend {
        /// What it answers.
        id: String,
        /// Where.
        listen: SocketAddr,
    },
    /// The clients of one host of the cluster.
    #[command(hide = true)]
    Client {
        /// Whom they ask: names of services, and their VIPs.
        #[arg(value_parser = target)]
        targets: Vec<client::Target>,
    },
    /// A client that means harm.
    #[command(hide = true)]
    Hostile {
        /// To whom.
        vips: Vec<Ipv4Addr>,
    },
}

/// Where the front of each host listens.
const FRONT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 80);

fn main() -> Result<()> {
    match Cli::parse().command {
        Command::Chaos { seed, minutes } => {
            let seed = seed.unwrap_or_else(|| fastrand::u64(..1_000_000));
            run::chaos(&programs()?, seed, Duration::from_secs(60 * minutes))
        }
        Command::Soak { minutes } => soak::soak(&programs()?, Duration::from_secs(60 * minutes)),
        Command::Backend { id, listen } => backend::serve(&id, listen),
        Command::Client { targets } => client::run(&targets, FRONT),
        Command::Hostile { vips } => hostile::run(&vips, FRONT),
    }
}

fn programs() -> Result<Programs> {
    let own = std::env::current_exe().context("cannot find this program")?;
    Programs::beside(own)
}

/// In no time nothing is tried, and nobody waits for more than a week.
fn minutes() -> RangedU64ValueParser {
    value_parser!(u64).range(1..=7 * 24 * 60)
}

fn target(text: &str) -> Result<client::Target> {
    let (service, vip) = text.split_once('=').context("no = in it")?;
    Ok(client::Target {
        service: service.to_owned(),
        vip: vip.parse()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_is_refused_because_nothing_would_be_tried() {
        for command in ["chaos", "soak"] {
            let parse = |minutes| Cli::try_parse_from(["it", command, "--minutes", minutes]);
            let refusal = parse("0")
                .err()
                .map(|it| it.to_string())
                .unwrap_or_default();
            assert!(refusal.contains("1..=10080"), "{refusal}");
            assert!(parse("1").is_ok());
        }
    }
}
