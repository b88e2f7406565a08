//! Who the clients on this host are: which network namespace belongs to which container, and what can be reached from it.
//!
//! The kernel tells a client by the cookie of its network namespace, on every kind of cgroup tree. [`run`] follows the
//! value of [`docker`](crate::docker) and sends [`Clients`]. Whoever is not in it stands on the host.

mod compose;
mod namespaces;
mod process;
mod stage;

pub(crate) use compose::process;
pub use lb_core::clients::{Client, Clients, Standing};
pub(crate) use namespaces::{Fault, Wanted, cookie_here, peers};
pub use process::{NoProcess, cookie_of};
pub use stage::{Config, Error, Outputs, run};
