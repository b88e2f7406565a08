//! Attaching programs to devices, so that they stay when the agent goes and the next one finds them.
//!
//! Links are pinned and get the new program in place: there is no moment without one. Below kernel 6.6 the programs of tc
//! hang from a qdisc, without a link; then the program itself is pinned, to remember where it hangs.

use std::{
    fs, io,
    os::fd::{AsFd as _, OwnedFd},
    path::PathBuf,
};

use aya::{
    maps::{HashMap, MapData},
    programs::{
        Program, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode as AyaMode,
        links::{FdLink, LinkOrder},
        tc::TcAttachOptions,
    },
    util::KernelVersion,
};

use lb_common::packet::packet_map as map;

use super::{
    Programs, clsact,
    pin::{Pin, unlink},
};
use crate::{Error, publisher::gone};

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
    /// Why XDP is not native where that was to be tried first.
    pub fallback: Option<String>,
}

impl Attached {
    /// Whether the card's program of XDP is there, so that frames of other cards may leave by it.
    fn takes_frames(&self) -> bool {
        let xdp = |hook: &Hook| matches!(hook.how, How::Native | How::Generic);
        self.hooks.iter().any(xdp)
    }

    /// Whether the program is in place, attached like this.
    fn runs(&self, program: &str, how: How) -> bool {
        let found = |hook: &Hook| hook.program == program && hook.how == how;
        let mut hooks = self.hooks.iter();
        hooks.any(|hook| found(hook) && hook.in_place() == Some(true))
    }

    /// In the place of an earlier one.
    fn put(&mut self, hook: Hook) {
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
            None => clsact::is_there(self.index, direction(self.program)).ok(),
        }
    }
}

/// Where in tc a program is attached.
pub(super) fn direction(program: &str) -> TcAttachType {
    if program.ends_with("_in") {
        TcAttachType::Ingress
    } else {
        TcAttachType::Egress
    }
}

impl Programs {
    /// Attaches to `device` what its role asks for, in the place of an earlier agent's programs where there are some. To
    /// be called again when it is there under another index, or something of it is not in place: the rest is left alone.
    ///
    /// # Errors
    /// When there is no such device, it joins packets, or the kernel refuses; what was attached until then stays.
    pub fn attach(&mut self, device: &str, role: Role) -> Result<&Attached, Error> {
        let index = nix::net::if_::if_nametoindex(device).map_err(|source| Error::Device {
            device: device.to_owned(),
            source: source.into(),
        })?;
        let is_it = |it: &Attached| it.device == device && it.index == index;
        let whole = self.attached.iter().position(is_it);
        let begun = self.begun.iter().position(is_it);
        let before = whole.map(|at| self.attached.remove(at));
        let before = before.or_else(|| begun.map(|at| self.begun.remove(at)));
        let mut attached = before.unwrap_or_else(|| Attached {
            device: device.to_owned(),
            index,
            role,
            hooks: Vec::new(),
            fallback: None,
        });
        attached.role = role;
        if let Err(error) = self.complete(&mut attached) {
            let is_there = |it: &Attached| nix::net::if_::if_indextoname(it.index).is_ok();
            self.begun.retain(is_there);
            let list = match whole {
                Some(_) => &mut self.attached,
                None => &mut self.begun,
            };
            list.push(attached);
            return Err(error);
        }
        self.attached.retain(|it| it.device != device);
        self.begun.retain(|it| it.device != device);
        self.attached.push(attached);
        let last = self.attached.len() - 1;
        Ok(&self.attached[last])
    }

    /// Attaches what is not in place; what is, is left alone.
    fn complete(&mut self, attached: &mut Attached) -> Result<(), Error> {
        let (device, index) = (attached.device.clone(), attached.index);
        // What puts the VIP back comes first: nothing begins a flow before that is there.
        let programs = match attached.role {
            Role::Card { .. } => ["tc_card_out", "tc_card_in"],
            Role::Client => ["tc_client_out", "tc_client_in"],
        };
        let how = self.tc();
        for program in programs {
            if !attached.runs(program, how) {
                let hook = self.attach_tc(program, &device, index, how)?;
                attached.put(hook);
            }
        }
        if let Role::Card { mode } = attached.role {
            require_link_address(&device)?;
            let done = self.attach_xdp("xdp_card", attached, mode);
            if done.is_ok() && attached.takes_frames() {
                // After: what other cards send out by a device must be meant for one that runs the program.
                self.insert_card(index)?;
            } else {
                self.forget_card(index)?;
            }
            done?;
        }
        Ok(())
    }

    /// Takes the programs off a device, which ends what they do there; the flows stay in the maps.
    ///
    /// # Errors
    /// When a pin cannot be removed or a filter not be taken away; the call can be repeated.
    pub fn detach(&mut self, device: &str) -> Result<(), Error> {
        let Some(at) = self.attached.iter().position(|it| it.device == device) else {
            return Ok(());
        };
        let index = self.attached[at].index;
        self.begun.retain(|it| it.index != index);
        self.forget_card(index)?;
        self.remove_pins(|pin| pin.index == index)?;
        self.attached.remove(at);
        tracing::info!(device, "the packet path left the device");
        Ok(())
    }

    /// Takes away what an earlier agent attached to devices that are not attached now.
    ///
    /// # Errors
    /// As [`Programs::detach`].
    pub fn detach_others(&mut self) -> Result<(), Error> {
        let wanted: Vec<_> = self
            .attached
            .iter()
            .flat_map(|it| {
                it.hooks
                    .iter()
                    .map(|hook| (hook.program, it.index, hook.how))
            })
            .collect();
        let mut cards: HashMap<MapData, u32, u32> = self.map(map::CARDS)?;
        let known: Result<Vec<u32>, _> = cards.keys().collect();
        for index in known.map_err(Error::map("read", map::CARDS))? {
            if !(self.attached.iter()).any(|it| it.index == index && it.takes_frames()) {
                cards
                    .remove(&index)
                    .map_err(Error::map("write", map::CARDS))?;
            }
        }
        self.remove_pins(|pin| {
            !wanted.iter().any(|&(program, index, how)| {
                (program, index, how) == (&pin.program, pin.index, pin.how)
            })
        })
    }

    /// The devices, and what runs there.
    pub fn attached(&self) -> &[Attached] {
        &self.attached
    }

    /// Lets programs of tc hang from the qdisc clsact, as below kernel 6.6: for tests.
    pub fn use_clsact(&mut self) {
        self.clsact = true;
    }

    /// Tells the programs of a card by its index: they send frames out of such devices alone, which have an address on a link.
    /// Attaching does that; tests run programs without it.
    ///
    /// # Errors
    /// When the device has no such address, or the kernel refuses.
    pub fn tell_card(&mut self, device: &str, index: u32) -> Result<(), Error> {
        require_link_address(device)?;
        self.insert_card(index)
    }

    fn insert_card(&mut self, index: u32) -> Result<(), Error> {
        let mut cards: HashMap<MapData, u32, u32> = self.map(map::CARDS)?;
        cards
            .insert(index, 1, 0)
            .map_err(Error::map("write", map::CARDS))
    }

    fn forget_card(&mut self, index: u32) -> Result<(), Error> {
        let mut cards: HashMap<MapData, u32, u32> = self.map(map::CARDS)?;
        gone(cards.remove(&index)).map_err(Error::map("remove from", map::CARDS))
    }

    /// How programs of tc are attached on this kernel.
    fn tc(&self) -> How {
        let tcx = !self.clsact
            && KernelVersion::current().is_ok_and(|it| it >= KernelVersion::new(6, 6, 0));
        if tcx { How::Tcx } else { How::Clsact }
    }

    fn attach_tc(
        &mut self,
        name: &'static str,
        device: &str,
        index: u32,
        how: How,
    ) -> Result<Hook, Error> {
        let tcx = how == How::Tcx;
        let other = if tcx { How::Clsact } else { How::Tcx };
        let pin = self.pin(name, index, how);
        let adopted = if tcx {
            self.adopt(name, &pin, index)?
        } else {
            None
        };
        let hook = if let Some(link) = adopted {
            tracing::info!(
                device,
                program = name,
                "adopted the attached program's link"
            );
            Hook {
                program: name,
                how,
                adopted: true,
                index,
                link: Some(link),
            }
        } else {
            let program = self.classifier(name)?;
            let refused = refused("attach", name, device);
            if tcx {
                let options = TcAttachOptions::TcxOrder(LinkOrder::default());
                let id = program
                    .attach_with_options(device, direction(name), options)
                    .map_err(&refused)?;
                let link: Result<FdLink, _> = program.take_link(id).map_err(&refused)?.try_into();
                let link = pin_link(
                    link.map_err(|source| Error::Link {
                        program: name,
                        source,
                    })?,
                    &pin,
                )?;
                tracing::info!(device, program = name, how = how.as_str(), "attached");
                Hook {
                    program: name,
                    how,
                    adopted: false,
                    index,
                    link: Some(link),
                }
            } else {
                let adopted = clsact::attach(program, name, device, direction(name))?;
                remember(program, &pin)?;
                tracing::info!(device, program = name, how = how.as_str(), "attached");
                Hook {
                    program: name,
                    how,
                    adopted,
                    index,
                    link: None,
                }
            }
        };
        // What an agent on another kernel version, or in a test, left beside.
        self.remove_pins(|it| it.program == name && it.index == index && it.how == other)?;
        Ok(hook)
    }

    fn attach_xdp(
        &mut self,
        name: &'static str,
        attached: &mut Attached,
        mode: XdpMode,
    ) -> Result<(), Error> {
        let (device, index) = (&*attached.device.clone(), attached.index);
        let ways: &[How] = match mode {
            XdpMode::Auto => &[How::Native, How::Generic],
            XdpMode::Native => &[How::Native],
            XdpMode::Generic => &[How::Generic],
            XdpMode::Off => &[],
        };
        // A device runs one of both.
        self.remove_pins(|it| it.program == name && it.index == index && !ways.contains(&it.how))?;
        let hooks = &mut attached.hooks;
        hooks.retain(|it| it.program != name || ways.contains(&it.how));
        // Where it cannot be read there is none.
        if !ways.is_empty() && lb_sys::ethtool::joins_received(device).is_ok_and(|joins| joins) {
            return Err(Error::Lro {
                device: device.to_owned(),
            });
        }
        if ways.iter().any(|how| attached.runs(name, *how)) {
            return Ok(());
        }
        attached.fallback = None;
        for &how in ways {
            let pin = self.pin(name, index, how);
            if let Some(link) = self.adopt(name, &pin, index)? {
                tracing::info!(
                    device,
                    program = name,
                    "adopted the attached program's link"
                );
                attached.put(Hook {
                    program: name,
                    how,
                    adopted: true,
                    index,
                    link: Some(link),
                });
                return Ok(());
            }
        }
        let mut fallback = None;
        for (at, &how) in ways.iter().enumerate() {
            let pin = self.pin(name, index, how);
            let program = self.xdp(name)?;
            let refused = refused("attach", name, device);
            let asked = if how == How::Native {
                AyaMode::Driver
            } else {
                AyaMode::Skb
            };
            match program.attach(device, asked) {
                Ok(id) => {
                    let link: Result<FdLink, _> =
                        program.take_link(id).map_err(refused)?.try_into();
                    let link = link.map_err(|source| Error::Link {
                        program: name,
                        source,
                    })?;
                    let link = pin_link(link, &pin)?;
                    if let Some(why) = &fallback {
                        tracing::warn!(device, why, "the driver does not run XDP; the stack does");
                    }
                    tracing::info!(device, program = name, how = how.as_str(), "attached");
                    attached.put(Hook {
                        program: name,
                        how,
                        adopted: false,
                        index,
                        link: Some(link),
                    });
                    attached.fallback = fallback;
                    return Ok(());
                }
                Err(error) if at + 1 == ways.len() => return Err(refused(error)),
                Err(error) => fallback = Some(chain(&error)),
            }
        }
        Ok(())
    }

    /// Puts the program `name` into the link pinned at `path`, if there is one that is attached to the device.
    fn adopt(
        &mut self,
        name: &'static str,
        path: &PathBuf,
        index: u32,
    ) -> Result<Option<OwnedFd>, Error> {
        let link = match lb_sys::bpf::object_get(path) {
            Ok(link) => link,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::pin("open the pinned link", path)(error)),
        };
        let device = lb_sys::bpf::link_device(link.as_fd());
        if device.map_err(Error::pin("read the pinned link", path))? != index {
            // Its device is gone, and this is another one.
            fs::remove_file(path).map_err(Error::pin("remove the outdated link", path))?;
            return Ok(None);
        }
        let program = self.ebpf.program(name).ok_or(Error::Missing(name))?;
        let descriptor = program.fd().map_err(|source| Error::Program {
            verb: "use",
            program: name,
            device: None,
            source: Box::new(source),
        })?;
        lb_sys::bpf::link_update(link.as_fd(), descriptor.as_fd())
            .map_err(Error::pin("replace the program of the link", path))?;
        Ok(Some(link))
    }

    fn classifier(&mut self, name: &'static str) -> Result<&mut SchedClassifier, Error> {
        match self.ebpf.program_mut(name) {
            Some(Program::SchedClassifier(program)) => Ok(program),
            _ => Err(Error::Missing(name)),
        }
    }

    fn xdp(&mut self, name: &'static str) -> Result<&mut Xdp, Error> {
        match self.ebpf.program_mut(name) {
            Some(Program::Xdp(program)) => Ok(program),
            _ => Err(Error::Missing(name)),
        }
    }

    fn pin(&self, program: &str, index: u32, how: How) -> PathBuf {
        self.links
            .join(format!("{program}-{index}-{}", how.as_str()))
    }

    /// Removes pins, and with them what they keep attached.
    fn remove_pins(&self, gone: impl Fn(&Pin) -> bool) -> Result<(), Error> {
        let failed = || Error::pin("list", &self.links);
        let mut pins = Vec::new();
        for entry in fs::read_dir(&self.links).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            if let Some(pin) = name.to_str().and_then(Pin::parse).filter(&gone) {
                pins.push((pin, self.links.join(name)));
            }
        }
        // What puts the VIP back goes last: no flow begins whose answers nobody translates.
        pins.sort_by_key(|(pin, _)| pin.program.ends_with("_out"));
        for (pin, path) in pins {
            pin.take_off(&path)?;
            unlink(&path)?;
        }
        Ok(())
    }
}

/// Fails where a device has no address on a link: frames without one are not understood.
fn require_link_address(device: &str) -> Result<(), Error> {
    let device = device.to_owned();
    match nix::ifaddrs::getifaddrs() {
        Ok(mut all) => {
            let has_address = all.any(|it| {
                let address = it.address.as_ref().and_then(|it| it.as_link_addr()?.addr());
                it.interface_name == device && address.is_some()
            });
            let none = || Error::NoLinkAddress { device };
            has_address.then_some(()).ok_or_else(none)
        }
        Err(error) => Err(Error::Device {
            device,
            source: error.into(),
        }),
    }
}

fn refused(
    verb: &'static str,
    program: &'static str,
    device: &str,
) -> impl Fn(ProgramError) -> Error {
    let device = Some(device.to_owned());
    move |source| Error::Program {
        verb,
        program,
        device: device.clone(),
        source: Box::new(source),
    }
}

fn pin_link(link: FdLink, path: &PathBuf) -> Result<OwnedFd, Error> {
    link.pin(path).map_err(|source| Error::MakePin {
        path: path.clone(),
        source,
    })?;
    lb_sys::bpf::object_get(path).map_err(Error::pin("open the pinned link", path))
}

/// Pins the program in the place of the one before it.
fn remember(program: &mut SchedClassifier, path: &PathBuf) -> Result<(), Error> {
    unlink(path)?;
    program.pin(path).map_err(|source| Error::MakePin {
        path: path.clone(),
        source,
    })
}

/// An error and what it came from, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
