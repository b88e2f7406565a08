//! What the kernel programs count and tell. Versioned by [`crate::MAP_VERSION`].

use crate::{Be16, Be32};

/// Value of `COUNTERS`: what happened to the connects of one table, counted per CPU. Those of the element 0, which
/// no table has, are of addresses of the pool that nobody has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Flows that were given a backend.
    pub flows: u64,
    /// Connects that failed at the backend: refused, or the SYN went unanswered.
    pub failed: u64,
    /// Flows refused, by [`Refusal`].
    pub refused: [u64; 4],
    /// Decisions that were to be told but found no room in `TRACES`.
    pub untold: u64,
    /// Spare, zero.
    pub spare: u64,
}

const _: () = assert!(size_of::<Counters>() == 64);

/// Why a flow was refused: the index in [`Counters::refused`], and the label in metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Refusal {
    /// Nobody has the address, or not on this port.
    Unknown = 0,
    /// No backend is usable.
    NoBackend = 1,
    /// None of the usable backends can be reached from where the client stands.
    NoPath = 2,
    /// The service does not let the client in.
    Denied = 3,
}

impl Refusal {
    /// All of them, in the order of their integers.
    pub const ALL: [Self; 4] = [Self::Unknown, Self::NoBackend, Self::NoPath, Self::Denied];

    /// The word in metrics, tables and JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::NoBackend => "no-backend",
            Self::NoPath => "no-path",
            Self::Denied => "denied",
        }
    }
}

/// Buckets of [`Latency`]. The first holds what took less than [`FIRST_BUCKET_MICROS`], each other one twice as much, the
/// last one all the rest.
pub const LATENCY_BUCKETS: u32 = 12;

/// Upper bound of the first bucket, in microseconds.
pub const FIRST_BUCKET_MICROS: u32 = 64;

/// Value of `LATENCIES`, by backend index and the size of a cache line: how connects to one address went. Changed by
/// atomic adds only.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Sum of the handshakes' round trips, in microseconds.
    pub micros: u64,
    /// Connects that failed.
    pub failed: u64,
    /// Handshakes that took so long.
    pub buckets: [u32; LATENCY_BUCKETS as usize],
}

const _: () = assert!(size_of::<Latency>() == 64);

/// What the kernel tells of one decision through the `TRACES` ring, for a service with [`crate::flag::TRACE`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Coarse monotonic nanoseconds.
    pub time_ns: u64,
    /// The cookie of the client's network namespace.
    pub client: u64,
    /// The cookie of the socket.
    pub socket: u64,
    /// Process id in the high 32 bits, thread id in the low ones; 0 where the kernel cannot tell (before 6.10).
    pub process: u64,
    /// The thread's name, as far as it fits; zeroes where the kernel cannot tell.
    pub command: [u8; 16],
    /// The IPv4 VIP, or the one that stands for the IPv6 VIP.
    pub vip: Be32,
    /// Its port.
    pub port: Be16,
    /// IANA protocol number.
    pub proto: u8,
    /// A [`Form`](crate::Form) as its integer.
    pub form: u8,
    /// [`Service::table`](crate::Service::table) of the element that decided; 0 without one.
    pub table: u32,
    /// Index in `BACKENDS` of the address that was given; 0 for a refusal.
    pub backend: u32,
    /// Its generation; for a refusal, the [`Refusal`] as its integer.
    pub detail: u32,
    /// Spare, zero.
    pub spare: u32,
}

const _: () = assert!(size_of::<Trace>() == 72);

#[cfg(test)]
mod tests {
    use super::*;

    /// They are in metrics and in JSON, which are kept.
    #[test]
    fn refusals_have_their_words_in_the_order_of_their_integers() {
        let words = Refusal::ALL.map(Refusal::as_str);
        assert_eq!(words, ["unknown", "no-backend", "no-path", "denied"]);
        for (index, refusal) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(refusal as usize, index);
        }
    }
}
