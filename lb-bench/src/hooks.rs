//! What the kernel counts of each program, and putting another program into a hook's link.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, include_bytes_aligned,
    programs::Program,
    sys::{Stats, enable_stats},
};
use lb_agent::programs::Programs;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench"));

/// The hooks that run for flows and datagrams; those of `bind()` are not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Getpeername4,
    Getpeername6,
    SockRelease,
    SockOps,
    Recvmsg4,
    Recvmsg6,
    Sendmsg4,
    Sendmsg6,
    Connect6,
    Connect4,
}

impl Hook {
    pub(crate) const ALL: [Self; HOOKS] = [
        Self::Getpeername4,
        Self::Getpeername6,
        Self::SockRelease,
        Self::SockOps,
        Self::Recvmsg4,
        Self::Recvmsg6,
        Self::Sendmsg4,
        Self::Sendmsg6,
        Self::Connect6,
        Self::Connect4,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Getpeername4 => "getpeername4",
            Self::Getpeername6 => "getpeername6",
            Self::SockRelease => "sock_release",
            Self::SockOps => "sock_ops",
            Self::Recvmsg4 => "recvmsg4",
            Self::Recvmsg6 => "recvmsg6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
            Self::Connect6 => "connect6",
            Self::Connect4 => "connect4",
        }
    }
}

/// How many.
pub(crate) const HOOKS: usize = 10;

/// What sits in a hook's link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupant {
    /// The agent's program.
    Real,
    /// One that does nothing.
    Empty,
    /// One that only creates the socket's record; for `connect4`.
    Record,
}

/// What the kernel counted since something was put into the links.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Runs {
    pub(crate) count: u64,
    pub(crate) nanoseconds: u64,
}

impl Runs {
    /// What was counted after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            count: self.count - before.count,
            nanoseconds: self.nanoseconds - before.nanoseconds,
        }
    }

    /// Nanoseconds of one run; not a number when there was none.
    pub(crate) fn each(self) -> f64 {
        self.nanoseconds as f64 / self.count as f64
    }
}

/// The links of the attached programs, and who can sit in them.
pub(crate) struct Hooks {
    agent: Programs,
    bench: Ebpf,
    /// In the order of [`Hook::ALL`].
    links: Vec<OwnedFd>,
    occupants: [Occupant; HOOKS],
    /// The kernel counts runs and their time while this is open.
    statistics: Option<OwnedFd>,
}

impl Hooks {
    /// Loads the programs to compare with.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn new(agent: Programs) -> Result<Self> {
        let mut bench = Ebpf::load(OBJECT)?;
        for (name, program) in bench.programs_mut() {
            match program {
                Program::CgroupSockAddr(program) => program.load(),
                Program::CgroupSock(program) => program.load(),
                Program::SockOps(program) => program.load(),
                _ => bail!("the bench's object has a program {name} of another kind"),
            }
            .with_context(|| format!("cannot load {name}"))?;
        }
        let links = Hook::ALL.into_iter().map(|hook| {
            let (_, link) = agent
                .links()
                .find(|(name, _)| *name == hook.name())
                .with_context(|| format!("{} is not attached", hook.name()))?;
            Ok(link.try_clone_to_owned()?)
        });
        Ok(Self {
            links: links.collect::<Result<_>>()?,
            agent,
            bench,
            occupants: [Occupant::Real; HOOKS],
            statistics: None,
        })
    }

    /// Lets the kernel count runs and their time from now on, for which each run reads the clock twice.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn count(&mut self) -> Result<()> {
        let statistics = enable_stats(Stats::RunTime)
            .context("cannot turn on the statistics of BPF programs")?;
        self.statistics = Some(statistics);
        Ok(())
    }

    /// Puts a program into the hook's link, with no moment without one.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn put(&mut self, hook: Hook, occupant: Occupant) -> Result<()> {
        let program = self
            .program(hook, occupant)?
            .fd()?
            .as_fd()
            .try_clone_to_owned()?;
        lb_sys::bpf::link_update(self.links[hook as usize].as_fd(), program.as_fd())
            .with_context(|| format!("cannot replace the program of {}", hook.name()))?;
        self.occupants[hook as usize] = occupant;
        Ok(())
    }

    /// What the kernel counted of the program in each hook's link, in the order of [`Hook::ALL`].
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn runs(&mut self) -> Result<[Runs; HOOKS]> {
        let mut all = [Runs::default(); HOOKS];
        for (hook, runs) in Hook::ALL.into_iter().zip(&mut all) {
            let occupant = self.occupants[hook as usize];
            let info = self.program(hook, occupant)?.info()?;
            *runs = Runs {
                count: info.run_count(),
                nanoseconds: u64::try_from(info.run_time().as_nanos())?,
            };
        }
        Ok(all)
    }

    fn program(&mut self, hook: Hook, occupant: Occupant) -> Result<&Program> {
        let (object, name) = match occupant {
            Occupant::Real => (self.agent.ebpf(), hook.name().to_owned()),
            Occupant::Empty => (&mut self.bench, format!("empty_{}", hook.name())),
            Occupant::Record => (&mut self.bench, format!("record_{}", hook.name())),
        };
        object
            .program(&name)
            .with_context(|| format!("there is no program {name}"))
    }
}
