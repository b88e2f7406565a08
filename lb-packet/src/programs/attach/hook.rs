//! What a device is to the packet path, and what is attached to it.

use std::os::fd::{AsFd as _, OwnedFd};

use super::clsact;

/// What a device is to the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads to other hosts.
    Card {
        /// Whether and how XDP is used: backends of other hosts are served by it alone.
        mode: XdpMode,
    },
    /// A client is at its other end: the host's side of a veth or a tap.
    Client,
}

/// How XDP is to be attached to a card.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// By the driver, else by the stack.
    #[default]
    Auto,
    /// By the driver.
    Native,
    /// By the stack, after it made a buffer of the packet: slower, with any driver.
    Generic,
    /// Not at all: only backends of this host are served.
    Off,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// XDP in the driver.
    Native,
    /// XDP in the stack.
    Generic,
    /// A link of tc.
    Tcx,
    /// From the qdisc clsact, below kernel 6.6.
    Clsact,
}

impl How {
    /// The word in status and JSON, which is also the end of a pin's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Generic => "generic",
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// One device and what runs at it.
#[derive(Debug)]
pub struct Attached {
    /// Its name.
    pub device: String,
    /// Its interface index.
    pub index: u32,
    /// What it is to the packet path.
    pub role: Role,
    /// The programs.
    pub hooks: Vec<Hook>,
    /// Why XDP is not native where that was to be tried first, with a remedy if there is one.
    pub fallback: Option<String>,
}

impl Attached {
    /// Whether the card's program of XDP is there, so that frames of other cards may leave by it.
    pub(super) fn takes_frames(&self) -> bool {
        let xdp = |hook: &Hook| matches!(hook.how, How::Native | How::Generic);
        self.hooks.iter().any(xdp)
    }

    /// Whether the program is in place, attached like this.
    pub(super) fn runs(&self, program: &str, how: How) -> bool {
        let found = |hook: &Hook| hook.program == program && hook.how == how;
        let mut hooks = self.hooks.iter();
        hooks.any(|hook| found(hook) && hook.in_place() == Some(true))
    }

    /// In the place of an earlier one.
    pub(super) fn put(&mut self, hook: Hook) {
        self.hooks.retain(|it| it.program != hook.program);
        self.hooks.push(hook);
    }
}

/// One attached program.
#[derive(Debug)]
pub struct Hook {
    /// Its name.
    pub program: &'static str,
    /// How it is attached.
    pub how: How,
    /// Whether it took the place of an earlier agent's.
    pub adopted: bool,
    /// The device's interface index.
    index: u32,
    link: Option<OwnedFd>,
}

impl Hook {
    /// Whether it still is in place: the kernel detaches a link when its device goes, and anybody may take a qdisc away with what
    /// hangs from it. `None` where the kernel does not tell.
    pub fn in_place(&self) -> Option<bool> {
        match &self.link {
            Some(link) => {
                Some(lb_sys::bpf::link_device(link.as_fd()).is_ok_and(|device| device != 0))
            }
            None => clsact::is_there(self.program, self.index).ok(),
        }
    }
}

/// Where one program is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spot<'a> {
    pub(super) program: &'static str,
    pub(super) device: &'a str,
    /// The device's interface index.
    pub(super) index: u32,
    pub(super) how: How,
}

impl Spot<'_> {
    /// What is there now: what keeps it, if not a qdisc, and whether it took the place of an earlier agent's.
    pub(super) fn hook(self, link: Option<OwnedFd>, adopted: bool) -> Hook {
        Hook {
            program: self.program,
            how: self.how,
            adopted,
            index: self.index,
            link,
        }
    }

    /// Says that the program was attached there.
    pub(super) fn tell(self) {
        let Self {
            program,
            device,
            how,
            ..
        } = self;
        tracing::info!(device, program, how = how.as_str(), "attached");
    }
}
