//! Lets aya copy the types in and out of maps. The orphan rule forces these into this crate.

use crate::{
    Active, Affinity, AffinityKey, Backend, Client, Counters, Cursor, Latency, Peer, PeerKey,
    Record, Service, ServiceKey, Suspect, Table,
};

macro_rules! pod {
    ($($name:ident),*) => {
        $(
            // SAFETY: `repr(C)`, integers only, every bit pattern valid, no padding (sizes are asserted
            // beside each definition).
            unsafe impl aya::Pod for $name {}
        )*
    };
}

pod!(
    Active,
    Affinity,
    AffinityKey,
    Backend,
    Client,
    Counters,
    Cursor,
    Latency,
    Peer,
    PeerKey,
    Record,
    Service,
    ServiceKey,
    Suspect,
    Table
);
