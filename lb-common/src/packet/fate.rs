//! What becomes of packets, and how it is counted and told.

/// Value of `RATES`: new flows of this second, for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Which coarse monotonic second.
    pub second: u32,
    /// Flows that began in it.
    pub flows: u32,
}

const _: () = assert!(size_of::<Rate>() == 8);

/// Value of `SERVICE_TRAFFIC` and `TARGET_TRAFFIC`, for each CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets towards backends.
    pub packets: u64,
    /// Their bytes, without the link's head.
    pub bytes: u64,
    /// Flows that began.
    pub flows: u64,
    /// Packets that were dropped.
    pub dropped: u64,
}

const _: () = assert!(size_of::<Traffic>() == 32);

/// What became of a packet: the index in `FATES`, and the label in metrics. Whatever is dropped has one that says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u32)]
pub enum Fate {
    /// None of ours, or the stack's to answer.
    Passed = 0,
    /// To a backend, with both ends replaced; also to a client that is its own backend.
    Full = 1,
    /// To a backend, with the VIP replaced.
    Destination = 2,
    /// To a backend's host, in a tunnel.
    Tunnelled = 3,
    /// Out of a tunnel: counted once more with what becomes of what was in it.
    Untunnelled = 4,
    /// An answer of a backend to its client.
    Answered = 5,
    /// An ICMP error to the end of the flow that it is about.
    Error = 6,
    /// An echo request, answered for the VIP.
    Echo = 7,
    /// For a backend of this host: up the stack, where it is counted once more with what becomes of it.
    Local = 8,
    /// By the stack: the next hop was not known, or it leaves by a device that XDP cannot send to.
    Stack = 9,
    /// Too big for the way to the backend: the client was told.
    TooBig = 10,
    /// A TCP packet that nobody takes: the client was told.
    Reset = 11,
    /// A packet in the midst of a flow that was not known: sent by the table. Where its backend sees the client's address, the flow is
    /// known from then on.
    Unknown = 12,
    /// Dropped: not as the protocols are.
    Malformed = 13,
    /// Dropped: a fragment, which has no ports.
    Fragment = 14,
    /// Nobody has the address, or not on this port: the stack's route of the pool says so.
    NoEndpoint = 15,
    /// Dropped: no backend is usable. A client of TCP is told.
    NoBackend = 16,
    /// Dropped: the backend of the flow is gone.
    BackendGone = 17,
    /// Dropped: of no flow that is known. A client of TCP is told.
    NoFlow = 18,
    /// Dropped: all ports to the backend are in use.
    NoPort = 19,
    /// Dropped: the maps of flows are full.
    TableFull = 20,
    /// Dropped: too many new flows.
    Flood = 21,
    /// Dropped: it has been under way for too long.
    Expired = 22,
    /// Dropped: there is no way to the backend.
    NoRoute = 23,
    /// Dropped: a tunnel from a host that is none of ours.
    Stranger = 24,
    /// Dropped: the backend's host is not known.
    NoHost = 25,
    /// Dropped: a protocol that VIPs do not speak.
    Protocol = 26,
    /// Dropped: the packet could not be given another size.
    Resize = 27,
}

/// Elements of `FATES`.
pub const FATES: u32 = 32;

/// Bits of a fate that are counted beside it: they are no fate of their own.
pub mod oddity {
    /// Index in `FATES` of packets with IPv4 options or IPv6 extension headers.
    pub const OPTIONS: u32 = 30;
    /// Index in `FATES` of samples that found no room.
    pub const UNTOLD: u32 = 31;
}

impl Fate {
    /// All of them, in the order of their integers.
    pub const ALL: [Self; 28] = [
        Self::Passed,
        Self::Full,
        Self::Destination,
        Self::Tunnelled,
        Self::Untunnelled,
        Self::Answered,
        Self::Error,
        Self::Echo,
        Self::Local,
        Self::Stack,
        Self::TooBig,
        Self::Reset,
        Self::Unknown,
        Self::Malformed,
        Self::Fragment,
        Self::NoEndpoint,
        Self::NoBackend,
        Self::BackendGone,
        Self::NoFlow,
        Self::NoPort,
        Self::TableFull,
        Self::Flood,
        Self::Expired,
        Self::NoRoute,
        Self::Stranger,
        Self::NoHost,
        Self::Protocol,
        Self::Resize,
    ];

    /// The word in metrics, tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Full => "full",
            Self::Destination => "destination",
            Self::Tunnelled => "tunnelled",
            Self::Untunnelled => "untunnelled",
            Self::Answered => "answered",
            Self::Error => "error",
            Self::Echo => "echo",
            Self::Local => "local",
            Self::Stack => "stack",
            Self::TooBig => "too-big",
            Self::Reset => "reset",
            Self::Unknown => "unknown-flow",
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::NoEndpoint => "no-endpoint",
            Self::NoBackend => "no-backend",
            Self::BackendGone => "backend-gone",
            Self::NoFlow => "no-flow",
            Self::NoPort => "no-port",
            Self::TableFull => "table-full",
            Self::Flood => "flood",
            Self::Expired => "expired",
            Self::NoRoute => "no-route",
            Self::Stranger => "stranger",
            Self::NoHost => "no-host",
            Self::Protocol => "protocol",
            Self::Resize => "resize",
        }
    }

    /// Whether the packet is gone.
    pub const fn drops(self) -> bool {
        self as u32 >= Self::Malformed as u32
    }
}

/// Elements of `STEPS`.
pub const STEPS: u32 = 2;

/// Index in `STEPS` of what `xdp_card` goes on with.
pub mod step {
    /// `xdp_card_any`: packets that are not as nearly all are.
    pub const ANY: u32 = 0;
    /// `xdp_card_message`: messages and tunnels.
    pub const MESSAGE: u32 = 1;
    /// The programs, by these.
    pub const PROGRAMS: [&str; super::STEPS as usize] = ["xdp_card_any", "xdp_card_message"];
}

/// Bytes of a packet that a [`Sample`] holds.
pub const SAMPLE_BYTES: usize = 128;

/// One packet, as `SAMPLES` tells it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// Interface index of the device that it came by, or leaves by.
    pub device: u32,
    /// Its length with the link's head.
    pub length: u32,
    /// How many of `bytes` are its.
    pub kept: u32,
    /// A [`Fate`] as its integer.
    pub fate: u32,
    /// Its first bytes, as it came.
    pub bytes: [u8; SAMPLE_BYTES],
}

const _: () = assert!(size_of::<Sample>() == 152);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fates_are_listed_in_the_order_of_their_integers() {
        for (index, fate) in Fate::ALL.into_iter().enumerate() {
            assert_eq!(fate as usize, index, "{fate:?}");
        }
        assert!(Fate::ALL.len() <= oddity::OPTIONS as usize);
    }
    #[test]
    fn a_packet_is_gone_unless_somebody_has_it() {
        let kept = Fate::ALL.into_iter().filter(|fate| !fate.drops());
        assert!(kept.eq([
            Fate::Passed,
            Fate::Full,
            Fate::Destination,
            Fate::Tunnelled,
            Fate::Untunnelled,
            Fate::Answered,
            Fate::Error,
            Fate::Echo,
            Fate::Local,
            Fate::Stack,
            Fate::TooBig,
            Fate::Reset,
            Fate::Unknown,
        ]));
    }

    #[test]
    fn every_fate_has_a_word_of_its_own() {
        for (index, fate) in Fate::ALL.into_iter().enumerate() {
            let word = fate.as_str();
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte == b'-';
            assert!(!word.is_empty() && word.bytes().all(plain), "{word}");
            let mut others = Fate::ALL.into_iter().skip(index + 1);
            assert!(others.all(|it| it.as_str() != word), "{word}");
        }
        assert_eq!(Fate::NoEndpoint.as_str(), "no-endpoint");
    }
}
