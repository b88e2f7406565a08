//! Speaks with neighbours on the chosen devices: answers those who ask for a VIP, and announces VIPs that this host takes.
//!
//! It works without any program in the kernel. Where the packet path answers in XDP, its frames never come here.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    Announcing, Error, Metrics, Moment, Status, Vips,
    device::{self, BUFFER, Device, Devices, Ear, Link, trouble},
    frame::{self, Mac},
    groups::Groups,
    schedule::Schedule,
};
use crate::{vip::Pools, wait::at};

/// Between two lines of the log about others that announce our VIPs.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Between two looks at the devices.
const LOOK: Duration = Duration::from_secs(1);

/// What answers and announces.
pub(super) struct Voice {
    shared: Arc<Shared>,
    devices: Vec<Arc<Speaker>>,
    answering: JoinSet<()>,
    schedule: Schedule,
    /// Those that are announced; empty while this host is not the owner.
    known: BTreeSet<Ipv4Addr>,
    groups: Groups,
}

/// What every device's answers depend on.
struct Shared {
    pools: Pools,
    announcing: watch::Receiver<Announcing>,
    vips: watch::Receiver<Vips>,
    metrics: Arc<Metrics>,
    /// When it was logged last that somebody else announces our VIPs.
    warned: Mutex<Option<Instant>>,
}

impl Shared {
    /// Takes in that somebody at `mac` says that it has an address.
    fn claimed(&self, device: &str, address: Ipv4Addr, mac: Mac) {
        if !self.answers_for(address.into()) {
            return;
        }
        self.metrics.conflicts.fetch_add(1, Ordering::Relaxed);
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|last| last.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            let [a, b, c, d, e, f] = mac;
            warn!(
                device, vip = %address, by = format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
                "another host announces a VIP that this host answers for: see that one host alone has \
                 owner = \"always\", and all others of this network the same key, in [announce]"
            );
        }
    }

    fn holds(&self) -> bool {
        self.announcing.borrow().holds(Moment::now())
    }

    /// Whether this host answers for an address.
    fn answers_for(&self, address: IpAddr) -> bool {
        let vip = self.pools.vip(address);
        let vips = self.vips.borrow();
        let is_known = |vip| vips.as_ref().is_some_and(|all| all.contains(&vip));
        vip.is_some_and(is_known) && self.holds()
    }
}

/// A device, and how it was at the last look.
struct Speaker {
    device: Device,
    link: Mutex<Option<Link>>,
}

impl Speaker {
    fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Voice {
    /// One for these devices, with the pools that VIPs come from.
    ///
    /// # Errors
    /// When sockets cannot be waited for.
    pub(super) fn new(
        Devices(devices): Devices,
        pools: Pools,
        announcing: watch::Receiver<Announcing>,
        vips: watch::Receiver<Vips>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            pools,
            announcing,
            vips,
            metrics,
            warned: Mutex::default(),
        });
        let mut answering = JoinSet::new();
        let mut speakers = Vec::new();
        for device in devices {
            let speaker = Arc::new(Speaker {
                device,
                link: Mutex::default(),
            });
            for family in [Family::V4, Family::V6] {
                let ear = family.ear(&speaker.device).clone();
                #[expect(
                    deprecated,
                    reason = "its successor is unsafe; an ear keeps its descriptor for as long as it lives"
                )]
                let ear = AsyncFd::with_interest(ear, Interest::READABLE);
                let ear = ear.map_err(Error::Wait)?;
                answering.spawn(answer(speaker.clone(), family, ear, shared.clone()));
            }
            speakers.push(speaker);
        }
        Ok(Self {
            shared,
            devices: speakers,
            answering,
            schedule: Schedule::default(),
            known: BTreeSet::new(),
            groups: Groups::default(),
        })
    }

    /// Speaks until `stop`. `able` hears whether there is a device that has a link.
    pub(super) async fn run(
        mut self,
        status: watch::Sender<Status>,
        able: watch::Sender<bool>,
        stop: CancellationToken,
    ) {
        let (mut announcing, mut vips) = (self.shared.announcing.clone(), self.shared.vips.clone());
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let until = announcing.borrow_and_update().until.map(|it| it.at);
            vips.borrow_and_update();
            self.follow(&status);
            let next = self.schedule.next();
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = announcing.changed() => {}
                Ok(()) = vips.changed() => {}
                () = at(until), if !self.known.is_empty() => {}
                () = at(next) => self.announce(),
                _ = look.tick() => self.look(&status, &able),
                // They never end, but by a fault.
                Some(Err(fault)) = self.answering.join_next() => {
                    if let Ok(panic) = fault.try_into_panic() {
                        std::panic::resume_unwind(panic);
                    }
                }
            }
        }
    }

    /// Takes in who is the owner and which VIPs there are.
    fn follow(&mut self, status: &watch::Sender<Status>) {
        let all = self.shared.vips.borrow().clone().unwrap_or_default();
        let of_each = 1 + usize::from(self.shared.pools.v6.is_some());
        let addresses = all.len() * of_each;
        status.send_if_modified(|status| {
            std::mem::replace(&mut status.addresses, addresses) != addresses
        });
        let vips = match self.shared.holds() {
            true => (*all).clone(),
            false => BTreeSet::new(),
        };
        if vips == self.known {
            return;
        }
        self.schedule.retain(|vip| vips.contains(&vip));
        let new = vips.difference(&self.known).copied();
        self.schedule.add(new, Instant::now());
        self.known = vips;
        self.listen(status);
    }

    /// Takes part in the groups that questions for the twins go to, and in no others of ours.
    fn listen(&mut self, status: &watch::Sender<Status>) {
        let links = self.devices.iter();
        let indexes = links.filter_map(|it| it.link().as_ref()?.index());
        let indexes: Vec<_> = indexes.collect();
        let twins = self
            .known
            .iter()
            .filter_map(|vip| self.shared.pools.twin(*vip));
        let groups: BTreeSet<_> = twins.map(frame::solicited_node).collect();
        let wanted = indexes
            .iter()
            .flat_map(|index| groups.iter().map(|group| (*index, *group)));
        let refusal = self.groups.follow(wanted.collect());
        let refusal = refusal.err().map(|error| {
            format!(
                "cannot take part in the groups of IPv6 that questions for VIPs go to: {error}; see \
                 net.ipv6.conf.DEVICE.disable_ipv6 and net.core.optmem_max"
            )
        });
        status.send_if_modified(|status| {
            let changed = status.groups != refusal;
            if let Some(refusal) = refusal.as_ref().filter(|_| changed) {
                warn!("{refusal}");
            }
            status.groups = refusal;
            changed
        });
    }

    fn announce(&mut self) {
        let shared = &self.shared;
        for vip in self.schedule.take(Instant::now()) {
            // Between two frames the lease may end.
            if !shared.holds() {
                return;
            }
            for speaker in &self.devices {
                let Some(mac) = speaker.link().as_ref().and_then(Link::mac) else {
                    continue;
                };
                let frame = frame::arp_announcement(vip, mac);
                let count = &shared.metrics.arp_announcements;
                say(&speaker.device.arp, &frame, count, &shared.metrics);
                if let Some(twin) = shared.pools.twin(vip) {
                    let frame = frame::ndp_announcement(twin, mac);
                    let count = &shared.metrics.ndp_announcements;
                    say(&speaker.device.ndp, &frame, count, &shared.metrics);
                }
            }
        }
    }

    /// Looks at the devices; one that came, or is another one now, is heard from here on.
    fn look(&mut self, status: &watch::Sender<Status>, able: &watch::Sender<bool>) {
        let links = device::links();
        let mut has_changed = false;
        let mut troubles = BTreeMap::new();
        for speaker in &self.devices {
            let name = &speaker.device.name;
            let link = match &links {
                Ok(links) => links.get(name).cloned(),
                Err(_) => speaker.link().clone(),
            };
            let before = speaker.link().clone();
            let mut trouble =
                trouble(link.as_ref()).map(|(what, remedy)| format!("{name}: {what}; {remedy}"));
            // Whatever was wrong before, it is tried again.
            let is_other = link != before || status.borrow().devices.get(name) != Some(&None);
            if is_other && trouble.is_none() {
                trouble = self.attend(speaker, link.as_ref());
            }
            has_changed |= link != before;
            let is_fit = trouble.is_none();
            *speaker.link() = link.filter(|_| is_fit);
            troubles.insert(name.clone(), trouble);
        }
        let is_able = self.devices.is_empty() || troubles.values().any(Option::is_none);
        status.send_if_modified(|status| {
            for (name, trouble) in &troubles {
                match (status.devices.get(name), trouble) {
                    (Some(old), new) if old == new => {}
                    (_, None) => info!(device = %name, "VIPs can be announced"),
                    (_, Some(trouble)) => warn!(device = %name, "{trouble}"),
                }
            }
            let changed = status.devices != troubles;
            status.devices = troubles;
            changed
        });
        if has_changed {
            self.listen(status);
            // Whoever is there now has not heard of it.
            self.schedule
                .add(self.known.iter().copied(), Instant::now());
        }
        able.send_if_modified(|able| std::mem::replace(able, is_able) != is_able);
    }

    fn attend(&self, speaker: &Speaker, link: Option<&Link>) -> Option<String> {
        let (link, pools) = (link?, self.shared.pools);
        let Device { name, arp, ndp } = &speaker.device;
        let attended = arp
            .attend(link, &device::arp_filter(pools))
            .and_then(|()| ndp.attend(link, &device::ndp_filter(pools)));
        let error = attended.err()?;
        Some(format!("cannot listen on {name}: {error}"))
    }
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn ear(self, device: &Device) -> &Ear {
        match self {
            Self::V4 => &device.arp,
            Self::V6 => &device.ndp,
        }
    }
}

/// Answers who asks for a VIP on a device, for ever.
async fn answer(speaker: Arc<Speaker>, family: Family, ear: AsyncFd<Ear>, shared: Arc<Shared>) {
    let mut buffer = [0; BUFFER];
    loop {
        let Ok(mut ready) = ear.readable().await else {
            // The runtime ends.
            return;
        };
        let frame = match ready.try_io(|ear| ear.get_ref().hear(&mut buffer)) {
            Ok(Ok(length)) => &buffer[..length],
            // A device that goes down says so once.
            Ok(Err(_)) | Err(_) => continue,
        };
        let Some(mac) = speaker.link().as_ref().and_then(Link::mac) else {
            continue;
        };
        match family {
            Family::V4 => {
                if let Some((address, other)) = frame::arp_claim(frame)
                    && other != mac
                {
                    shared.claimed(&speaker.device.name, address, other);
                }
                let asked = frame::arp_question(frame);
                if let Some(asked) = asked.filter(|it| shared.answers_for(it.target.into())) {
                    let answer = frame::arp_answer(&asked, mac);
                    say(
                        ear.get_ref(),
                        &answer,
                        &shared.metrics.arp_answers,
                        &shared.metrics,
                    );
                }
            }
            Family::V6 => {
                let asked = frame::ndp_question(frame);
                if let Some(asked) = asked.filter(|it| shared.answers_for(it.target.into())) {
                    let answer = frame::ndp_answer(&asked, mac);
                    say(
                        ear.get_ref(),
                        &answer,
                        &shared.metrics.ndp_answers,
                        &shared.metrics,
                    );
                }
            }
        }
    }
}

fn say(ear: &Ear, frame: &[u8], count: &AtomicU64, metrics: &Metrics) {
    let count = match ear.say(frame) {
        Ok(()) => count,
        Err(_) => &metrics.unsent,
    };
    count.fetch_add(1, Ordering::Relaxed);
}
