//! The front's side towards backends: which one gets a request, on which connection, and what happens when it
//! does not answer.
//!
//! | file | room |
//! |---|---|
//! | `send` | a request, sent and sent again |
//! | `choose` | the next backend for it |
//! | `pool`, `connect` | how many connections there may be, making one |
//! | `lease`, `socket` | connections of one request at a time |
//! | `caller` | which client alone one of these is for |
//! | `h2c` | connections of many, and requests on them |
//! | `loan`, `arriving` | a request's share in either, and the answer's body |
//! | `account` | what a worker keeps about a service: `turns`, `budget` of retries, `eject`, `queue` |
//! | `stats` | figures |

mod account;
mod arriving;
mod budget;
mod caller;
mod choose;
mod connect;
mod eject;
mod h2c;
mod lease;
mod loan;
pub(super) mod pool;
mod queue;
mod send;
mod socket;
pub(super) mod stats;
mod turns;

pub(super) use arriving::Arriving;
pub(super) use h2c::{adapt, takes_trailers};
pub(super) use loan::Loan;
pub(super) use send::send;
