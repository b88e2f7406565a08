//! The packet path from user space: balances what no socket hook sees.
//!
//! [`Programs`] loads the kernel's programs and keeps them attached to devices; [`Publisher`] tells them which endpoints
//! there are and who serves them. What they write down is read by [`Flows`] (the flows, and which of them are over),
//! [`Figures`] (packets, and what became of them) and [`Samples`] (the packets themselves). [`Explainer`] says where a packet would go.
//! Nothing here knows services, names or health: it does what its caller wants, and tells what it did.
//!
//! All maps are pinned, and so are the links: the programs go on while nobody is there, and the next [`Programs::load`]
//! finds everything as it was left.

mod address;
mod book;
mod config;
mod desired;
mod error;
mod explain;
mod figures;
mod flows;
pub mod free_list;
#[cfg(test)]
mod hot;
pub mod maglev;
mod plan;
mod programs;
mod publisher;
mod samples;

pub use config::{Config, HAIRPIN4, HAIRPIN6, Limits};
pub use desired::{Desired, Member, Place, Wanted};
pub use error::Error;
pub use explain::{Answer, Explainer, Question};
pub use figures::{Fates, Figures};
pub use flows::{Census, Collected, Fill, Filter, FlowEntry, Flows, Pressure, Sight};
pub use plan::Refused;
pub use programs::{
    Attached, Gone, Hook, How, PROGRAMS, Programs, Role, XdpMode, pin_root, remove,
};
pub use publisher::{Publisher, Report, Times};
pub use samples::{Packet, Pcap, Samples};
