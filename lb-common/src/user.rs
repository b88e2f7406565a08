//! Lets aya copy the types in and out of maps. The orphan rule forces these into this crate.

use crate::{
    Active, Affinity, AffinityKey, Backend, Client, Counters, Cursor, Latency, Peer, PeerKey,
    Record, Service, ServiceKey, Suspect, Table,
    packet::{
        Endpoint, EndpointKey, Flow, FlowKey4, FlowKey6, Hop, Maglev, Rate, Reply, ReplyKey4,
        ReplyKey6, Settings, Target, Traffic,
    },
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
    Endpoint,
    EndpointKey,
    Flow,
    FlowKey4,
    FlowKey6,
    Hop,
    Latency,
    Maglev,
    Peer,
    PeerKey,
    Rate,
    Record,
    Reply,
    ReplyKey4,
    ReplyKey6,
    Service,
    ServiceKey,
    Settings,
    Suspect,
    Table,
    Target,
    Traffic
);
