//! From what the maps hold to what they should hold, as steps in an order in which no packet ever meets less than it should.
//!
//! Backends come before tables that name them, a table before the endpoint that makes it the live one, endpoints of this host
//! before those that lead packets to them, and endpoints before the addresses that this host answers for. What goes does so the other way round, and a backend only when no program can
//! still read a table with it. A table that a late program reads while it is written anew gives it a backend all the same: one of
//! before or one of now, and both are there.

mod endpoints;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use lb_common::{
    Be16,
    packet::{EndpointKey, MAGLEV_SLOTS, Settings, Target, target_flag},
};

pub(crate) use self::endpoints::digest;
use crate::{
    Desired, Member, Place, Wanted,
    address::words,
    book::{Book, Home, Placed},
    free_list::REST,
};

/// One change of one map.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    PutSettings(Settings),
    PutHost(IpAddr),
    RemoveHost(IpAddr),
    PutVip(Ipv4Addr),
    RemoveVip(Ipv4Addr),
    /// With `fresh`, the index had another backend before, or none.
    PutTarget {
        address: SocketAddr,
        home: Home,
        fresh: bool,
    },
    /// Into the table that is not live.
    PutTable {
        table: u32,
        slots: Box<[u16]>,
        named: BTreeSet<u32>,
    },
    /// With `fresh`, the service's index had another endpoint before, or none.
    PutEndpoint {
        key: EndpointKey,
        placed: Placed,
        fresh: bool,
    },
    /// Nothing to write: the live table of an earlier agent is the one that these members have.
    Recognise {
        key: EndpointKey,
        members: Arc<[Member]>,
    },
    RemoveEndpoint(EndpointKey),
    /// Its generation stays, so that no flow of its meets the next one.
    FreeTarget {
        address: SocketAddr,
        home: Home,
    },
}

/// The steps, and what cannot be done.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    pub(crate) refused: Vec<Refused>,
    /// When a next plan has something to do, if nothing else changes.
    pub(crate) again: Option<Instant>,
}

/// What there is no room for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// An endpoint: all indexes of services are taken, or rest.
    Endpoint(EndpointKey),
    /// A backend: all indexes of backends are taken, or rest. The others of its endpoints serve without it.
    Backend(SocketAddr),
    /// A host: its packets in tunnels are not taken.
    Host(IpAddr),
    /// A VIP: who asks where it is, or whether it is there, has no answer.
    Vip(Ipv4Addr),
}

/// What a plan is made of, while it is made.
struct Maker<'a> {
    book: &'a Book,
    desired: &'a Desired,
    now: Instant,
    free_services: crate::free_list::FreeList,
    free_targets: crate::free_list::FreeList,
    published: u32,
    /// Endpoints that may differ from what the maps hold.
    changed: Vec<(&'a EndpointKey, &'a Wanted)>,
    /// Backends whose index the steps so far give out or change.
    moved: BTreeMap<SocketAddr, Home>,
    /// Backends that are found to be of this host: packets are left to the stack once it knows where to.
    come_home: Vec<Step>,
    plan: Plan,
}

/// The steps from `book` to `desired` at `now`.
pub(crate) fn plan(book: &Book, desired: &Desired, now: Instant) -> Plan {
    let mut maker = Maker {
        book,
        desired,
        now,
        free_services: book.free_services.clone(),
        free_targets: book.free_targets.clone(),
        published: book.published,
        changed: book.changed(desired).collect(),
        moved: BTreeMap::new(),
        come_home: Vec::new(),
        plan: Plan::default(),
    };
    let traced = desired.endpoints.values().any(|wanted| wanted.trace);
    let settings = Settings {
        traced: traced.into(),
        ..desired.settings
    };
    if book.settings != settings {
        maker.plan.steps.push(Step::PutSettings(settings));
    }
    let new = desired.hosts.difference(&book.hosts).copied();
    maker.plan.steps.extend(new.map(Step::PutHost));
    maker.targets();
    maker.endpoints();
    maker.vips();
    maker.free();
    let gone = book.hosts.difference(&desired.hosts).copied();
    maker.plan.steps.extend(gone.map(Step::RemoveHost));
    // What goes now makes room once it has rested.
    let room = |it: &Step| matches!(it, Step::FreeTarget { .. } | Step::RemoveEndpoint(_));
    if !maker.plan.refused.is_empty() && maker.plan.steps.iter().any(room) {
        maker.again(Some(now + REST));
    }
    maker.plan
}

/// The value of a backend in the maps.
fn target(address: SocketAddr, place: Place, generation: u32) -> Target {
    Target {
        address: words(address.ip()),
        host: place.host.map_or([0; 4], words),
        port: Be16::from_host(address.port()),
        flags: if place.local { target_flag::LOCAL } else { 0 },
        generation,
    }
}

impl<'a> Maker<'a> {
    /// The index of a backend once the steps so far are taken.
    fn home(&self, backend: &SocketAddr) -> Option<Home> {
        let home = self.moved.get(backend);
        home.or_else(|| self.book.targets.get(backend)).copied()
    }

    /// Gives everybody who takes new flows an index, and says what changed about those that have one.
    fn targets(&mut self) {
        let mut seen = BTreeSet::new();
        for (key, wanted) in self.changed.clone() {
            for member in self.serving(key, wanted) {
                let place = self.desired.place(member.address);
                let home = self.home(&member.address);
                // Port 0 is how the maps say that nobody is there. Who takes no flows of one service may take those of the next.
                if member.address.port() == 0
                    || home.is_none() && member.weight == 0
                    || !seen.insert(member.address)
                {
                    continue;
                }
                match home {
                    Some(home) => {
                        let target = target(member.address, place, home.target.generation);
                        if target != home.target {
                            self.put_target(member.address, Home { target, ..home }, false);
                        }
                    }
                    None => match self.free_targets.take(self.now) {
                        Some(index) => {
                            let last = self.book.generations.get(&index).copied().unwrap_or(0);
                            // 0 is of an index that nobody ever had.
                            let generation = last.wrapping_add(1).max(1);
                            let target = target(member.address, place, generation);
                            self.put_target(member.address, Home { index, target }, true);
                        }
                        None => {
                            self.plan.refused.push(Refused::Backend(member.address));
                            self.again(self.free_targets.next_rested());
                        }
                    },
                }
            }
        }
    }

    fn put_target(&mut self, address: SocketAddr, home: Home, fresh: bool) {
        let before = self.home(&address);
        self.moved.insert(address, home);
        let step = Step::PutTarget {
            address,
            home,
            fresh,
        };
        let is_local = |home: Home| home.target.flags & target_flag::LOCAL != 0;
        if before.is_some_and(|before| is_local(home) && !is_local(before)) {
            self.come_home.push(step);
        } else {
            self.plan.steps.push(step);
        }
    }

    /// Those of an endpoint's members whom packets of it can be sent to.
    fn serving(
        &self,
        key: &EndpointKey,
        wanted: &'a Wanted,
    ) -> impl Iterator<Item = &'a Member> + use<'a> {
        let (key, desired) = (*key, self.desired);
        let members = wanted.members.iter();
        members.filter(move |member| desired.serves(&key, member.address))
    }

    fn vips(&mut self) {
        let new = self.desired.vips.difference(&self.book.vips);
        self.plan.steps.extend(new.copied().map(Step::PutVip));
        let gone = self.book.vips.difference(&self.desired.vips);
        self.plan.steps.extend(gone.copied().map(Step::RemoveVip));
    }

    /// Lets those go whom nobody wants and no program can still read of.
    fn free(&mut self) {
        let (book, desired) = (self.book, self.desired);
        let gone = book.endpoints.keys();
        let gone = gone.filter(|key| !desired.endpoints.contains_key(key));
        let left = self.changed.iter().map(|(key, _)| *key).chain(gone);
        let mut unwanted = book.unnamed_without(left);
        for (key, wanted) in &desired.endpoints {
            if unwanted.is_empty() {
                return;
            }
            for member in self.serving(key, wanted) {
                unwanted.remove(&member.address);
            }
        }
        unwanted.retain(|address, _| !desired.kept.contains(address));
        for (address, (home, since)) in unwanted {
            // What names it now goes with this plan's steps.
            let rested = since.unwrap_or(self.now) + REST;
            if rested <= self.now {
                self.plan.steps.push(Step::FreeTarget { address, home });
            } else {
                self.again(Some(rested));
            }
        }
    }

    fn again(&mut self, at: Option<Instant>) {
        self.plan.again = [self.plan.again, at].into_iter().flatten().min();
    }
}

/// The slots that a live table has.
pub(crate) const SLOTS: usize = MAGLEV_SLOTS as usize;

#[cfg(test)]
mod tests;
