//! How many connections each client address has, and how many requests in HTTP/2, so that no single one takes all
//! places.
//!
//! What is counted is tokens that connections and requests themselves hold: one that is gone, for whatever reason, is not
//! counted.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Weak},
};

/// One worker's clients.
#[derive(Default)]
pub(super) struct Crowd {
    clients: RefCell<HashMap<IpAddr, Weak<()>>>,
}

/// Stands for one connection of a client, or one request, for as long as it lives.
pub(super) type Token = Arc<()>;

/// A token for one more of the client that has `token`; `None` when it already has `limit` of them.
pub(super) fn one_more(token: &Token, limit: usize) -> Option<Token> {
    (Arc::strong_count(token) < limit).then(|| token.clone())
}

impl Crowd {
    /// A token for one more connection of the client at `address`; `None` when it already has `limit` of them.
    pub(super) fn admit(&self, address: IpAddr, limit: usize) -> Option<Token> {
        let mut clients = self.clients.borrow_mut();
        let token = clients.entry(site(address)).or_default();
        let Some(shared) = token.upgrade() else {
            let first = Token::default();
            *token = Arc::downgrade(&first);
            return (limit > 0).then_some(first);
        };
        // `shared` is itself one more.
        (Arc::strong_count(&shared) <= limit).then_some(shared)
    }

    /// Forgets clients that have left.
    pub(super) fn sweep(&self) {
        let mut clients = self.clients.borrow_mut();
        clients.retain(|_, token| token.strong_count() > 0);
        // One that had a million addresses would be paid for until the end.
        if clients.capacity() > 4 * clients.len() + SPARE {
            clients.shrink_to_fit();
        }
    }
}

/// Whom an address stands for: in IPv6 one subscriber has a whole /64.
pub(super) fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address => address,
    }
}

const SPARE: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn each_client_has_the_limit_for_itself_and_gets_a_place_back() {
        let crowd = Crowd::default();
        let one = ip("192.0.2.1");
        let first = crowd.admit(one, 2).unwrap();
        let _second = crowd.admit(one, 2).unwrap();
        assert!(crowd.admit(one, 2).is_none());
        assert!(crowd.admit(ip("192.0.2.2"), 2).is_some());
        drop(first);
        let third = crowd.admit(one, 2).unwrap();
        assert!(one_more(&third, 2).is_none());
        let fourth = one_more(&third, 3).unwrap();
        assert!(crowd.admit(one, 3).is_none());
        drop(fourth);
        assert!(crowd.admit(one, 3).is_some());
    }

    #[test]
    fn an_ipv6_client_is_its_64_and_a_mapped_address_is_ipv4() {
        let crowd = Crowd::default();
        let _held = crowd.admit(ip("2001:db8:1:2::1"), 1).unwrap();
        assert!(crowd.admit(ip("2001:db8:1:2:ffff::9"), 1).is_none());
        assert!(crowd.admit(ip("2001:db8:1:3::1"), 1).is_some());
        let _mapped = crowd.admit(ip("::ffff:192.0.2.1"), 1).unwrap();
        assert!(crowd.admit(ip("192.0.2.1"), 1).is_none());
    }

    #[test]
    fn clients_that_left_are_forgotten() {
        let crowd = Crowd::default();
        let held = crowd.admit(ip("192.0.2.1"), 1);
        drop(crowd.admit(ip("192.0.2.2"), 1));
        crowd.sweep();
        assert_eq!(crowd.clients.borrow().len(), 1);
        drop(held);
        crowd.sweep();
        assert!(crowd.clients.borrow().is_empty());
    }
}
