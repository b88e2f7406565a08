//! Backends that speak HTTP/2 (`lb_proto=h2c`): few connections, each for many requests at a time.
//!
//! The h2 crate is used as it is, not by way of hyper: a request comes back whole when it may be sent again, and
//! nothing runs for it beside its own task but an upload that is still under way when the answer begins.
//!
//! | file | room |
//! |---|---|
//! | `lines` | the connections to one backend |
//! | `seat` | a request's place on one of them |
//! | `drive` | one connection, from its first byte to its last |
//! | `head` | a request's head as HTTP/2 has it |
//! | `send` | a request, and whether it may be sent again |
//! | `upload` | its body on its way |
//! | `body` | the answer's |

mod body;
mod drive;
mod head;
mod lines;
mod seat;
mod send;
mod upload;

pub(super) use body::Body;
pub(crate) use head::{adapt, takes_trailers};
pub(super) use lines::Lines;
pub(super) use seat::{Ride, Seat};
pub(super) use send::send_on;
