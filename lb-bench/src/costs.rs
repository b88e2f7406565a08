//! Nanoseconds of the programs themselves, by the kernel's own statistics.
//!
//! An empty program reads 70 to 140 ns by itself, most of it the clock. So each figure is net of an empty program
//! in the same link and the same round, and a figure is the median over the rounds.

use std::{
    borrow::Cow,
    net::{SocketAddr, TcpStream},
};

use anyhow::{Result, ensure};

use crate::{
    Effort,
    client::{self, Asker, Turns},
    hooks::{HOOKS, Hook, Hooks, Occupant, Runs},
    server::{CHUNK, Kind, Network, Place, backends},
    statistics::median,
    world::{FILLERS, World, filler, vip},
};

/// Nanoseconds, net of an empty program. Not a number where the setups for one were not in place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Costs {
    /// `connect4` to a VIP.
    pub(crate) hook: f64,
    /// A program at `connect4` that only creates the socket's record.
    pub(crate) record: f64,
    /// `connect4` to an address outside the pool.
    pub(crate) miss: f64,
    /// `getpeername4` of a client that connected to a VIP.
    pub(crate) getpeername: f64,
    /// `sock_release` of such a client.
    pub(crate) sock_release: f64,
    /// `sock_ops`, the mean over the runs for such a client.
    pub(crate) sock_ops: f64,
    /// All hooks together for a connection outside the pool, both ends.
    pub(crate) bystander: f64,
    /// `connect6` to an IPv6 VIP with IPv6 backends.
    pub(crate) connect6: f64,
    /// `getpeername6` of its client.
    pub(crate) getpeername6: f64,
    /// `sendmsg4` for a datagram to a VIP, of a socket that sent others before.
    pub(crate) sendmsg: f64,
    /// `recvmsg4` for its answer.
    pub(crate) recvmsg: f64,
}

/// Whose VIPs the clients turn to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Among {
    /// The one for short connections.
    Few,
    /// Each connection another of [`FILLERS`], in front of the same servers.
    Many,
}

impl Among {
    fn vips(self) -> Vec<SocketAddr> {
        match self {
            Self::Few => vec![vip(Network::Loopback, Kind::Short, Place::Bare)],
            Self::Many => (0..FILLERS).map(filler).collect(),
        }
    }

    fn setups(self) -> &'static [Setup] {
        match self {
            Self::Few => &Setup::ALL,
            Self::Many => &Setup::OF_THE_PATH,
        }
    }
}

/// Measures them.
///
/// # Errors
/// When a connection fails, or the kernel refuses.
pub(crate) fn measure(
    world: &mut World,
    hooks: &mut Hooks,
    effort: &Effort,
    among: Among,
) -> Result<Costs> {
    world.move_to(Place::Hooked)?;
    let vips = among.vips();
    let mut rounds = Vec::new();
    for number in 0..=effort.cost_rounds {
        if number % 100 == 1 {
            eprintln!(
                "    programs' own times: round {number} of {}",
                effort.cost_rounds
            );
        }
        let mut readings = Readings::default();
        let mut order = among.setups().to_vec();
        if number % 2 == 1 {
            order.reverse();
        }
        for setup in order {
            readings[setup as usize] = setup.read(hooks, &vips, number)?;
        }
        // The first round warms up.
        if number > 0 {
            rounds.push(costs(&readings));
        }
    }
    for hook in Hook::ALL {
        hooks.put(hook, Occupant::Real)?;
    }
    let over_rounds = |figure: fn(&Costs) -> f64| {
        median(&rounds.iter().map(figure).collect::<Vec<_>>()).unwrap_or(f64::NAN)
    };
    Ok(Costs {
        hook: over_rounds(|costs| costs.hook),
        record: over_rounds(|costs| costs.record),
        miss: over_rounds(|costs| costs.miss),
        getpeername: over_rounds(|costs| costs.getpeername),
        sock_release: over_rounds(|costs| costs.sock_release),
        sock_ops: over_rounds(|costs| costs.sock_ops),
        bystander: over_rounds(|costs| costs.bystander),
        connect6: over_rounds(|costs| costs.connect6),
        getpeername6: over_rounds(|costs| costs.getpeername6),
        sendmsg: over_rounds(|costs| costs.sendmsg),
        recvmsg: over_rounds(|costs| costs.recvmsg),
    })
}

/// Runs of all programs while a gigabyte flows through an established flow.
///
/// # Errors
/// When the flow breaks, or the kernel refuses.
pub(crate) fn transfer_runs(world: &mut World, hooks: &mut Hooks) -> Result<u64> {
    world.move_to(Place::Hooked)?;
    let count = |runs: [Runs; HOOKS]| runs.iter().map(|runs| runs.count).sum::<u64>();
    let before = count(hooks.runs()?);
    let mut flow = TcpStream::connect(vip(Network::Bridge, Kind::Sink, Place::Hooked))?;
    client::send_chunk(&mut flow)?;
    let established = count(hooks.runs()?);
    // Else a zero would only say that nothing is counted.
    ensure!(
        established > before,
        "the kernel does not count the programs' runs"
    );
    for _ in 0..GIGABYTE / CHUNK {
        client::send_chunk(&mut flow)?;
    }
    Ok(count(hooks.runs()?) - established)
}

/// Which programs are in place, and which connections are made.
#[derive(Clone, Copy, Debug)]
enum Setup {
    /// The agent's programs and a client of a VIP. The server is out of their sight, so that all runs are the
    /// client's.
    Vip,
    /// The same with only `connect4` the agent's: without it there would be no such client.
    VipEmpty,
    /// The agent's programs and a connection outside the pool, both ends in their sight.
    Bystander,
    /// The same with empty programs.
    Empty,
    /// As for a client of a VIP, with a program that makes the record in the place of `connect4`. It goes to the
    /// same servers, by their own addresses.
    Record,
    /// As [`Setup::Vip`], by IPv6 over the bridge.
    Vip6,
    /// The same directly, with empty programs.
    Empty6,
    /// The agent's programs and datagrams to a VIP, of one socket that is not connected.
    Datagrams,
    /// The same directly, with empty programs.
    EmptyDatagrams,
}

impl Setup {
    const ALL: [Self; SETUPS] = [
        Self::Vip,
        Self::VipEmpty,
        Self::Bystander,
        Self::Empty,
        Self::Record,
        Self::Vip6,
        Self::Empty6,
        Self::Datagrams,
        Self::EmptyDatagrams,
    ];

    /// Those that tell what a new flow pays, and a bystander.
    const OF_THE_PATH: [Self; 4] = [Self::Vip, Self::Bystander, Self::Empty, Self::Record];

    /// What the kernel counts for [`CONNECTIONS`] connections, those to a VIP to `vips` in turn.
    fn read(self, hooks: &mut Hooks, vips: &[SocketAddr], round: usize) -> Result<[Runs; HOOKS]> {
        let (connect4, others) = match self {
            Self::Vip | Self::Bystander | Self::Vip6 | Self::Datagrams => {
                (Occupant::Real, Occupant::Real)
            }
            Self::VipEmpty => (Occupant::Real, Occupant::Empty),
            Self::Empty | Self::Empty6 | Self::EmptyDatagrams => (Occupant::Empty, Occupant::Empty),
            Self::Record => (Occupant::Record, Occupant::Real),
        };
        for hook in Hook::ALL {
            let occupant = if hook == Hook::Connect4 {
                connect4
            } else {
                others
            };
            hooks.put(hook, occupant)?;
        }
        let direct = |network, kind, place| Cow::from(backends(network, kind, place).to_vec());
        let balanced = |network, kind| Cow::from(vec![vip(network, kind, Place::Bare)]);
        let targets = match self {
            Self::Vip | Self::VipEmpty => Cow::from(vips),
            Self::Bystander | Self::Empty => direct(Network::Loopback, Kind::Short, Place::Hooked),
            Self::Record => direct(Network::Loopback, Kind::Short, Place::Bare),
            Self::Vip6 => balanced(Network::Bridge6, Kind::Short),
            Self::Empty6 => direct(Network::Bridge6, Kind::Short, Place::Bare),
            Self::Datagrams => balanced(Network::Loopback, Kind::Datagram),
            Self::EmptyDatagrams => direct(Network::Loopback, Kind::Datagram, Place::Bare),
        };
        let socket = client::datagram_socket()?;
        if matches!(self, Self::Datagrams | Self::EmptyDatagrams) {
            // The first one of a socket is remembered, which the others find done.
            for &target in &*targets {
                Asker::Unconnected(target).ask(&socket)?;
            }
        }
        // Of many, each reading meets others.
        let mut targets = Turns::new(&targets, round * CONNECTIONS as usize);
        let mut connect = || -> Result<()> {
            let target = targets.next();
            match self {
                Self::Vip | Self::VipEmpty | Self::Vip6 | Self::Empty6 => {
                    let stream = TcpStream::connect(target)?;
                    stream.peer_addr()?;
                    client::finish(stream)?;
                }
                Self::Bystander | Self::Empty | Self::Record => client::visit(target)?,
                Self::Datagrams | Self::EmptyDatagrams => {
                    Asker::Unconnected(target).ask(&socket)?;
                }
            }
            Ok(())
        };
        // The first ones find in the caches what the setup before needed.
        for _ in 0..CONNECTIONS / 10 {
            connect()?;
        }
        let before = hooks.runs()?;
        for _ in 0..CONNECTIONS {
            connect()?;
        }
        let mut runs = hooks.runs()?;
        for (runs, before) in runs.iter_mut().zip(before) {
            *runs = runs.since(before);
        }
        Ok(runs)
    }
}

/// What was counted, for each setup and each hook.
type Readings = [[Runs; HOOKS]; SETUPS];

/// How many setups there are.
const SETUPS: usize = 9;

/// The figures of one round. Pure.
fn costs(readings: &Readings) -> Costs {
    let each = |setup: Setup, hook: Hook| readings[setup as usize][hook as usize].each();
    let net = |setup, empty, hook| each(setup, hook) - each(empty, hook);
    let whole = |setup: Setup| {
        let nanoseconds: u64 = readings[setup as usize]
            .iter()
            .map(|runs| runs.nanoseconds)
            .sum();
        nanoseconds as f64 / f64::from(CONNECTIONS)
    };
    Costs {
        hook: net(Setup::Vip, Setup::Empty, Hook::Connect4),
        record: net(Setup::Record, Setup::Empty, Hook::Connect4),
        miss: net(Setup::Bystander, Setup::Empty, Hook::Connect4),
        getpeername: net(Setup::Vip, Setup::VipEmpty, Hook::Getpeername4),
        sock_release: net(Setup::Vip, Setup::VipEmpty, Hook::SockRelease),
        sock_ops: net(Setup::Vip, Setup::VipEmpty, Hook::SockOps),
        bystander: whole(Setup::Bystander) - whole(Setup::Empty),
        connect6: net(Setup::Vip6, Setup::Empty6, Hook::Connect6),
        getpeername6: net(Setup::Vip6, Setup::Empty6, Hook::Getpeername6),
        sendmsg: net(Setup::Datagrams, Setup::EmptyDatagrams, Hook::Sendmsg4),
        recvmsg: net(Setup::Datagrams, Setup::EmptyDatagrams, Hook::Recvmsg4),
    }
}

/// Connections for one reading: so few that the readings of a round lie close together.
const CONNECTIONS: u32 = 500;

const GIGABYTE: usize = 1 << 30;
