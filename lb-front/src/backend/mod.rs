//! The front's side towards backends: which one gets a request, on which connection, and what happens when it
//! does not answer.

pub(super) mod pool;
mod send;

pub(super) use send::send;
