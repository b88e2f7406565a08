//! Runs rows: one sentence each, a packet in, a verdict, a packet out, and the fate that is counted.
//!
//! A row begins with the scene as `scene.rs` has it and without flows. What it needs beyond that it says itself: changes of what is
//! desired, and packets that came before. Exactly one fate must be counted, or none.

mod foretold;
pub(crate) mod frame;
mod play;
mod row;
pub(crate) mod scene;
mod world;

pub(crate) use foretold::{hash, pool_port};
pub(crate) use frame::{ACK, Body, FIN, Frame, RST, SYN};
pub(crate) use lb_packet::Desired;
pub(crate) use row::{
    Row,
    Verdict::{self, Pass, Redirect, Tx},
    row,
};
pub(crate) use scene::{
    CARD, CARD2, CLIENT, CLIENT_DEVICE, Family, V4, V6, key, neighbour, solicitation, vip,
};
pub(crate) use world::World;
