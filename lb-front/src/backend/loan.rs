//! What a request has of a backend: a connection, or a share of one.

use std::{rc::Rc, time::Duration};

use super::{account::Flight, h2c::Ride, lease::Lease, pool::Place};
use crate::timer::Timer;

pub(crate) enum Loan {
    /// HTTP/1.
    Whole(Lease),
    /// HTTP/2.
    Share(Ride),
}

impl Loan {
    /// Whether the connection carried a request before this one.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::Whole(lease) => lease.reused,
            Self::Share(ride) => ride.reused,
        }
    }

    /// Whether either side may be silent for as long as in a tunnel.
    pub(crate) fn is_patient(&self) -> bool {
        matches!(self, Self::Share(ride) if ride.patient)
    }

    /// For whoever waits for the backend.
    pub(crate) fn timer(&mut self) -> &mut Timer {
        match self {
            Self::Whole(lease) => &mut lease.timer,
            Self::Share(ride) => &mut ride.timer,
        }
    }

    /// The backend said for how long it keeps the connection.
    pub(super) fn heed(&mut self, said: Duration) {
        if let Self::Whole(lease) = self {
            lease.heed(said);
        }
    }

    /// `flight` ends with the answer.
    pub(super) fn carry(&mut self, flight: Flight) {
        match self {
            Self::Whole(lease) => lease.flight = Some(flight),
            Self::Share(ride) => ride.flight = Some(flight),
        }
    }

    /// What is left of the request ends with the answer, and in HTTP/1 the connection.
    pub(crate) fn end_with_answer(&mut self) {
        if let Self::Whole(lease) = self {
            lease.end_with_answer();
        }
    }

    /// The answer has ended: the connection may carry another request.
    pub(crate) fn give_back(self) {
        if let Self::Whole(lease) = self {
            lease.give_back();
        }
    }

    /// The connection has left HTTP; `None` where that cannot be.
    pub(crate) fn into_place(self) -> Option<Rc<Place>> {
        match self {
            Self::Whole(lease) => Some(lease.into_place()),
            Self::Share(_) => None,
        }
    }
}
