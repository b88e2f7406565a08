//! The front's side towards backends: which one gets a request, on which connection, and what happens when it
//! does not answer.
//!
//! | file | room |
//! |---|---|
//! | `send` | a request, sent and sent again |
//! | `choose` | the next backend for it |
//! | `pool`, `socket` | connections |
//! | `account` | what a worker keeps about a service: `turns`, `budget` of retries, `eject`, `queue` |
//! | `stats` | figures |

mod account;
mod budget;
mod choose;
mod eject;
pub(super) mod pool;
mod queue;
mod send;
mod socket;
pub(super) mod stats;
mod turns;

pub(super) use send::send;
