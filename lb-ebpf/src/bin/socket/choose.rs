//! From a VIP to a backend.

use core::{
    hint::{black_box, cold_path},
    num::NonZeroU32,
    ptr,
};

use aya_ebpf::{bindings::bpf_sock_addr, helpers::generated::bpf_get_netns_cookie};
use lb_common::{
    ANY_PORT, Affinity, AffinityKey, Backend, Balance, Be16, Be32, Client, Form, HOST_VIEW,
    PROTO_TCP, Refusal, SLOTS, Service, ServiceKey, Table, flag, mix,
};
use lb_ebpf::{Load, Seconds, Slots, select, suspected, unsuspected_after};

use crate::{
    count::{count, refuse},
    kernel::{fetch_add, now, settled},
    maps::{
        ACTIVE, AFFINITY, BACKENDS, CLIENTS, COUNTERS, CURSORS, DATAGRAMS, SERVICES, SLOT_MASK,
        SUSPECTS, Sticky, TABLES,
    },
};

/// What a socket asks for.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    /// The IPv4 VIP, or the one that stands for the IPv6 VIP.
    pub(crate) vip: Be32,
    pub(crate) port: Be16,
    /// IANA protocol number.
    pub(crate) proto: u8,
    pub(crate) form: Form,
}

/// What it is given.
#[derive(Clone, Copy)]
pub(crate) struct Choice {
    /// Index in `BACKENDS`.
    pub(crate) index: u32,
    pub(crate) backend: Backend,
    pub(crate) service: Service,
}

/// Why it is given nothing.
#[derive(Clone, Copy)]
pub(crate) enum Denial {
    /// Nobody has this address on this port.
    Unknown,
    /// The service has nothing for it.
    Refused(Refusal, Service),
}

/// Finds the service and a backend for one more flow, and counts it.
#[inline(always)]
pub(crate) fn choose(sa: *mut bpf_sock_addr, wish: &Wish) -> Result<Choice, Denial> {
    let Some((service, table)) = table_of(sa, wish) else {
        cold_path();
        // A UDP socket may go on: that is no refusal.
        if wish.proto == PROTO_TCP {
            refuse(0, Refusal::Unknown);
        }
        return Err(Denial::Unknown);
    };
    let Some(slots) = NonZeroU32::new(service.count).filter(|slots| slots.get() <= SLOTS) else {
        cold_path();
        return Err(refused(service));
    };
    let live = Live {
        sa,
        table,
        service,
        v6_only: false,
    };
    let index = if service.affinity_seconds == 0 {
        select(balance_of(&service), slots, &live)
    } else {
        live.affine(wish, slots)
    };
    let Some(backend) = BACKENDS.get(index).filter(|backend| taken(backend)) else {
        cold_path();
        return Err(refused(service));
    };
    count(service.table);
    Ok(Choice {
        index,
        backend: *backend,
        service,
    })
}

/// The same for a datagram of an unconnected socket: all that it sends to one virtual port go to one backend, as long as
/// that is there.
///
/// The kernel sends no datagram of an IPv6 address to an IPv4 one: it would answer ENOTSUPP, which is no error that
/// applications know. There is no way for it. (A mapped VIP comes by `sendmsg4`, and a connected socket by `connect6`.)
#[inline(always)]
pub(crate) fn choose_for_datagram(
    sa: *mut bpf_sock_addr,
    wish: &Wish,
    socket: u64,
) -> Result<Choice, Denial> {
    let Some((service, table)) = table_of(sa, wish) else {
        return Err(Denial::Unknown);
    };
    let Some(slots) = NonZeroU32::new(service.count).filter(|slots| slots.get() <= SLOTS) else {
        return Err(refused(service));
    };
    let live = Live {
        sa,
        table,
        service,
        v6_only: matches!(wish.form, Form::V6),
    };
    let index = if service.affinity_seconds == 0 {
        let socket = AffinityKey::new(socket, wish.vip, wish.port, wish.proto);
        live.sticky(&DATAGRAMS, &socket, u32::MAX, slots)
    } else {
        live.affine(wish, slots)
    };
    let Some(backend) = BACKENDS.get(index).filter(|backend| taken(backend)) else {
        return Err(refused(service));
    };
    if !live.reaches(backend) {
        refuse(service.table, Refusal::NoPath);
        return Err(Denial::Refused(Refusal::NoPath, service));
    }
    Ok(Choice {
        index,
        backend: *backend,
        service,
    })
}

/// The cookie of the client's network namespace.
#[inline(always)]
pub(crate) fn cookie(sa: *mut bpf_sock_addr) -> u64 {
    // SAFETY: the kernel passes a valid context.
    unsafe { bpf_get_netns_cookie(sa.cast()) }
}

/// Why a service without a slot refuses. Counted.
#[inline(always)]
fn refused(service: Service) -> Denial {
    let reason = if service.flags & flag::DENIED != 0 {
        Refusal::Denied
    } else if service.flags & flag::NO_PATH != 0 {
        Refusal::NoPath
    } else {
        Refusal::NoBackend
    };
    refuse(service.table, reason);
    Denial::Refused(reason, service)
}

#[inline(always)]
fn taken(backend: &Backend) -> bool {
    backend.port.raw() != 0
}

#[inline(always)]
fn balance_of(service: &Service) -> Balance {
    Balance::try_from(service.balance).unwrap_or(Balance::LeastConn)
}

/// The service that the wish means and its table, whose live half is the one that the service names.
#[inline(always)]
fn table_of(sa: *mut bpf_sock_addr, wish: &Wish) -> Option<(Service, *const Table)> {
    let (key, service) = find(sa, wish)?;
    let table = TABLES.get_ptr(service.table)?;
    if written_for(table, &service, &key) {
        return Some((service, table));
    }
    cold_path();
    // Its value was overtaken between the two look-ups: there is a newer one by now.
    let (mut key, mut service) = (key, service);
    if !find_again(sa, wish, &mut key, &mut service) {
        return None;
    }
    let table = TABLES.get_ptr(service.table)?;
    // Overtaken once more, within nanoseconds: no table is known to be the service's.
    written_for(table, &service, &key).then_some((service, table))
}

/// [`find`] for the rare second time, which is not to make the first one longer.
#[inline(never)]
fn find_again(
    sa: *mut bpf_sock_addr,
    wish: &Wish,
    key: &mut ServiceKey,
    service: &mut Service,
) -> bool {
    find_into(sa, wish, key, service)
}

/// The element that the wish means, and its key.
#[inline(always)]
fn find(sa: *mut bpf_sock_addr, wish: &Wish) -> Option<(ServiceKey, Service)> {
    let mut key = ServiceKey::new(wish.vip, ANY_PORT, wish.proto, HOST_VIEW);
    let mut service = Service::default();
    find_into(sa, wish, &mut key, &mut service).then_some((key, service))
}

/// The same, written where the caller has room for it: the stack is short. Whether there is one.
///
/// A service answers on every port or on named ones, never on both: which look-up comes first is only a
/// matter of speed.
#[inline(always)]
fn find_into(
    sa: *mut bpf_sock_addr,
    wish: &Wish,
    key: &mut ServiceKey,
    service: &mut Service,
) -> bool {
    *key = ServiceKey::new(wish.vip, ANY_PORT, wish.proto, HOST_VIEW);
    if let Some(found) = element(key) {
        *service = found;
    } else {
        *key = ServiceKey::new(wish.vip, wish.port, wish.proto, HOST_VIEW);
        let Some(found) = element(key) else {
            return false;
        };
        *service = found;
    }
    if service.flags & (flag::VIEWS | flag::V6) != 0 {
        as_seen(sa, wish, key, service);
    }
    true
}

/// Goes on from the host's element to the one of the client's view, and to the one of its family. Not part of the
/// caller: most services look the same from everywhere.
#[inline(never)]
fn as_seen(sa: *mut bpf_sock_addr, wish: &Wish, key: &mut ServiceKey, service: &mut Service) {
    if service.flags & flag::VIEWS != 0 {
        let cookie = cookie(sa);
        let mut client = Client::default();
        if settled(|| CLIENTS.get_ptr(cookie), &mut client) {
            let own = key.seen_from(client.view);
            let otherwise = key.seen_from(client.otherwise);
            if let Some(found) = element(&own) {
                (*key, *service) = (own, found);
            } else if let Some(found) = element(&otherwise) {
                (*key, *service) = (otherwise, found);
            }
        }
    }
    if service.flags & flag::V6 != 0 && !matches!(wish.form, Form::V4) {
        let six = key.for_v6();
        if let Some(found) = element(&six) {
            (*key, *service) = (six, found);
        }
    }
}

#[inline(always)]
fn element(key: &ServiceKey) -> Option<Service> {
    // SAFETY: the value is copied out at once. The kernel may reuse a replaced element meanwhile, for another
    // endpoint even: `written_for` tells.
    unsafe { SERVICES.get(key) }.copied()
}

/// Whether the half that the value names is the one it was published with.
#[inline(always)]
fn written_for(table: *const Table, service: &Service, key: &ServiceKey) -> bool {
    // SAFETY: array values live as long as the map, which outlives the program; the half is masked.
    let half = unsafe { &raw const (*table).halves[(service.half & 1) as usize] };
    // A key is three aligned words, which are compared faster than its five fields.
    // SAFETY: as above; any bytes are integers.
    unsafe {
        let owner: *const [u32; 3] = (&raw const (*half).owner).cast();
        let key: *const [u32; 3] = ptr::from_ref(key).cast();
        (*half).generation == service.generation && *owner == *key
    }
}

/// The live maps as the choice reads them.
struct Live {
    sa: *mut bpf_sock_addr,
    /// The table and its live half, apart: a pointer into the half would be computed before the null check.
    table: *const Table,
    service: Service,
    /// Whether the kernel would not send to an IPv4 backend.
    v6_only: bool,
}

impl Live {
    #[inline(always)]
    fn reaches(&self, backend: &Backend) -> bool {
        !(self.v6_only && backend.is_v4())
    }

    /// The backend of a client that is to keep it. Not part of the caller: few services ask for it.
    #[inline(never)]
    fn affine(&self, wish: &Wish, slots: NonZeroU32) -> u32 {
        let client = AffinityKey::new(cookie(self.sa), wish.vip, ANY_PORT, wish.proto);
        self.sticky(&AFFINITY, &client, self.service.affinity_seconds, slots)
    }

    /// The backend that the client had, unless that was longer ago than `limit` seconds, it is gone or it is suspected
    /// while another is not; else a new one. Notes which.
    #[inline(always)]
    fn sticky(
        &self,
        clients: &'static Sticky,
        client: &AffinityKey,
        limit: u32,
        slots: NonZeroU32,
    ) -> u32 {
        let seconds = Seconds::from_nanos(now());
        let mut known = Affinity::default();
        let mut kept = known;
        if settled(|| clients.get_ptr(client), &mut known)
            && seconds.within(Seconds(known.last_seconds), limit)
            && self.still_named(&known, slots.get())
            && !self.suspected(known.backend)
        {
            kept = known;
        }
        if kept.backend == 0 {
            kept.backend = select(balance_of(&self.service), slots, self);
            let chosen = BACKENDS.get(kept.backend);
            // What comes to nothing is not kept: the next choice may be one in reach.
            if chosen.is_none_or(|backend| !self.reaches(backend)) {
                return kept.backend;
            }
            kept.generation = chosen.map_or(0, |backend| backend.generation);
        }
        kept.published = self.service.generation;
        kept.last_seconds = seconds.0;
        if known != kept {
            // A full map gives up whom it has not seen for longest; a failure costs this client its place.
            let _ = clients.insert(client, kept, 0);
        }
        kept.backend
    }

    /// Whether the slots name the backend. They are only looked through when they were published anew.
    #[inline(always)]
    fn still_named(&self, last: &Affinity, count: u32) -> bool {
        let same = BACKENDS
            .get(last.backend)
            .is_some_and(|backend| backend.generation == last.generation && taken(backend));
        if !same || last.published == self.service.generation {
            return same;
        }
        slots_name(self.service.table, self.service.half, count, last.backend) != 0
    }
}

// Two loops over all slots. The verifier looks at a global function once, for any argument, and not again from every
// place and state that it is called from: so the programs load in milliseconds. Hence integers only.

/// Whether one of the first `count` slots of a half names `backend`.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn slots_name(table: u32, half: u32, count: u32, backend: u32) -> u32 {
    let Some(table) = TABLES.get_ptr(table) else {
        return 0;
    };
    for slot in 0..SLOTS {
        // Seen through, both ends of the loop become one, at `slot == min(count, SLOTS)`. The verifier of
        // Linux 6.1 does not know that a number beyond the range of another cannot be equal to it, and walks on until it
        // gives up.
        let slot = black_box(slot);
        if slot >= count {
            break;
        }
        if slot_of(table, half, slot) == backend {
            return 1;
        }
    }
    0
}

/// The first backend after slot `first` of `count` in a half that is not suspected; 0 if all are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn first_unsuspected(table: u32, half: u32, count: u32, first: u32) -> u32 {
    let Some(table) = TABLES.get_ptr(table) else {
        return 0;
    };
    let backend = |slot| slot_of(table, half, slot);
    unsuspected_after(first, count, backend, is_suspected).unwrap_or(0)
}

/// The backend in a slot of a half of a table.
#[inline(always)]
fn slot_of(table: *const Table, half: u32, slot: u32) -> u32 {
    let slot = (slot & SLOT_MASK.load()) as usize;
    // SAFETY: array values live as long as the map; the half is masked, and so is the slot, below `SLOTS`, which the
    // verifier checks again. The agent writes the idle half only, and every slot of a half names a backend of the service.
    unsafe {
        let slots = (&raw const (*table).halves[(half & 1) as usize].slots).cast::<u32>();
        *slots.add(slot)
    }
}

#[inline(always)]
fn is_suspected(backend: u32) -> bool {
    let until = SUSPECTS.get(backend).map_or(0, |suspect| suspect.until_ns);
    suspected(until, now)
}

impl Slots for Live {
    /// Of what was counted so far, which each choice changes: the kernel's generator costs a tenth of a choice.
    #[inline(always)]
    fn random(&self) -> u32 {
        COUNTERS.get_ptr(self.service.table).map_or(0, |counters| {
            // SAFETY: array values live as long as the map; only changed on this CPU.
            let (flows, no_path) = unsafe {
                (
                    (*counters).flows,
                    (*counters).refused[Refusal::NoPath as usize],
                )
            };
            mix(flows.wrapping_add(no_path))
        })
    }

    #[inline(always)]
    fn client(&self) -> u32 {
        mix(cookie(self.sa))
    }

    #[inline(always)]
    fn turn(&self) -> u64 {
        CURSORS.get_ptr_mut(self.service.table).map_or(0, |cursor| {
            // SAFETY: array values live as long as the map; the field is aligned and only changed here.
            unsafe { fetch_add(&raw mut (*cursor).turn, 1) }
        })
    }

    #[inline(always)]
    fn backend(&self, slot: u32) -> u32 {
        slot_of(self.table, self.service.half, slot)
    }

    #[inline(always)]
    fn load(&self, backend: u32) -> Load {
        let (counted_at, weight) = BACKENDS.get(backend).map_or((backend, 1), |backend| {
            #[expect(clippy::cast_possible_truncation, reason = "the index is the low half")]
            (backend.counted_at as u32, backend.weight)
        });
        let flows = ACTIVE.get(counted_at).map_or(0, |active| active.flows);
        Load { flows, weight }
    }

    #[inline(always)]
    fn suspected(&self, backend: u32) -> bool {
        is_suspected(backend)
    }

    #[inline(always)]
    fn unsuspected_after(&self, first: u32, count: u32) -> Option<u32> {
        let Service { table, half, .. } = self.service;
        // Index 0 is never given out.
        NonZeroU32::new(first_unsuspected(table, half, count, first)).map(NonZeroU32::get)
    }
}
