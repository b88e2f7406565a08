//! What an operator may say of the front's [`Limits`]. It comes with the settings, while clients are served: what was open
//! before goes on under the limits it began with, as far as it keeps a copy of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Limits;

/// What is configured of the limits; `None` leaves the front's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LimitSettings {
    /// [`Limits::first_byte`].
    pub first_byte: Option<Duration>,
    /// [`Limits::head`].
    pub head: Option<Duration>,
    /// [`Limits::keep_alive`].
    pub keep_alive: Option<Duration>,
    /// [`Limits::body_idle`].
    pub body_idle: Option<Duration>,
    /// [`Limits::write_stall`].
    pub write_stall: Option<Duration>,
    /// [`Limits::tunnel_idle`].
    pub tunnel_idle: Option<Duration>,
    /// [`Limits::request`]; `None` is without an end.
    pub request: Option<Duration>,
    /// [`Limits::connect`].
    pub connect: Option<Duration>,
    /// [`Limits::response_head`].
    pub response: Option<Duration>,
    /// [`Limits::queue`].
    pub queue_time: Option<Duration>,
    /// [`Limits::queued`], of all workers together.
    pub queue: Option<usize>,
    /// [`Limits::client_connections`], of all workers together. There are no more than descriptors allow.
    pub connections: Option<usize>,
    /// [`Limits::connections_per_client`].
    pub connections_per_client: Option<usize>,
    /// [`Limits::backend_connections`], of all workers together.
    pub backend_connections: Option<usize>,
    /// [`Limits::streams`].
    pub streams: Option<u32>,
    /// [`Limits::max_body`]; `None` is without an end.
    pub max_body: Option<u64>,
}

impl LimitSettings {
    /// The limits of one worker, which are `own` where nothing else is said.
    pub(crate) fn of(&self, own: Limits) -> Limits {
        let share = |all: Option<usize>| all.map(|all| all.div_ceil(own.workers.max(1)));
        let clients = share(self.connections).unwrap_or(own.client_connections);
        let clients = clients.max(FEWEST).min(own.client_connections);
        // Where there are fewer than there could be, one client still gets no more than half.
        let half = self.connections.map_or(usize::MAX, |_| clients / 2);
        let per_client = self.connections_per_client;
        Limits {
            first_byte: self.first_byte.unwrap_or(own.first_byte),
            head: self.head.unwrap_or(own.head),
            keep_alive: self.keep_alive.unwrap_or(own.keep_alive),
            body_idle: self.body_idle.unwrap_or(own.body_idle),
            write_stall: self.write_stall.unwrap_or(own.write_stall),
            tunnel_idle: self.tunnel_idle.unwrap_or(own.tunnel_idle),
            request: self.request.or(own.request),
            connect: self.connect.unwrap_or(own.connect),
            response_head: self.response.unwrap_or(own.response_head),
            queue: self.queue_time.unwrap_or(own.queue),
            queued: share(self.queue).unwrap_or(own.queued),
            client_connections: clients,
            connections_per_client: per_client.unwrap_or(own.connections_per_client.min(half)),
            backend_connections: share(self.backend_connections).unwrap_or(own.backend_connections),
            streams: self.streams.unwrap_or(own.streams),
            max_body: self.max_body.unwrap_or(own.max_body),
            ..own
        }
    }
}

/// Each listener of a worker has a place in hand for whoever comes next.
const FEWEST: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_stays_and_what_is_for_all_is_shared() {
        let own = Limits {
            workers: 4,
            client_connections: 100,
            head: Duration::from_secs(7),
            ..Limits::default()
        };
        assert_eq!(LimitSettings::default().of(own), own);
        let said = LimitSettings {
            connections: Some(90),
            connections_per_client: Some(50),
            backend_connections: Some(9),
            queue: Some(0),
            max_body: Some(10),
            ..LimitSettings::default()
        };
        let limits = said.of(own);
        assert_eq!(limits.head, own.head);
        assert_eq!(limits.client_connections, 23);
        assert_eq!(limits.connections_per_client, 50);
        assert_eq!(limits.backend_connections, 3);
        assert_eq!((limits.queued, limits.max_body), (0, 10));
    }

    #[test]
    fn one_client_keeps_nobody_out_of_fewer_connections_either() {
        let said = LimitSettings {
            connections: Some(64),
            ..LimitSettings::default()
        };
        let limits = said.of(Limits::default());
        assert_eq!(
            (limits.client_connections, limits.connections_per_client),
            (64, 32)
        );
    }

    #[test]
    fn nobody_gets_more_connections_than_there_are_descriptors() {
        let own = Limits {
            client_connections: 100,
            ..Limits::default()
        };
        let said = LimitSettings {
            connections: Some(1_000_000),
            ..LimitSettings::default()
        };
        assert_eq!(said.of(own).client_connections, 100);
    }
}
