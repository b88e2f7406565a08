//! `lb_sticky`: a cookie keeps a client at its instance.
//!
//! It holds two keyed hashes, of the instance and of the group that this was in. Nobody without the key can make one, or
//! learn an address from it; and whoever has the same key knows it, another host or the next front. Nothing is kept here.

use std::net::SocketAddr;

use hyper::{
    HeaderMap,
    header::{self, HeaderValue},
};
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};

use super::Wish;
use crate::{routes::RouteService, rules::WHOLE, table::Group};

/// What cookies are signed with. It is never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StickyKey([u8; 32]);

impl StickyKey {
    /// The key that is made of a secret of any length.
    pub fn of(secret: &[u8]) -> Self {
        let mut key = [0; 32];
        let digest = digest::digest(&digest::SHA256, secret);
        key.copy_from_slice(digest.as_ref());
        Self(key)
    }
}

impl std::fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// The cookies of one service.
pub(crate) struct Sticky {
    name: String,
    /// For which paths clients send it.
    path: String,
    /// Those that may be kept to.
    instances: Box<[Instance]>,
    groups: [(Group, GroupMark); 2],
    /// A group without any share keeps nobody.
    empty: Option<Group>,
}

struct Instance {
    /// Its index among the backends of the service.
    backend: u32,
    address: SocketAddr,
    group: Group,
    mark: Mark,
}

/// As hexadecimal digits, as they stand in the cookie.
type Mark = [u8; 32];
type GroupMark = [u8; 16];

/// What the cookie of a request says.
#[derive(Clone, Copy, Default)]
pub(super) struct Shown {
    /// Where the client was served: its index among the instances.
    instance: Option<u32>,
    group: Option<Group>,
}

impl Sticky {
    /// `None` for a service that does not ask for it, or without a key.
    pub(crate) fn new(service: &RouteService, key: Option<&StickyKey>) -> Option<Self> {
        let rules = service.rules.as_ref()?;
        let name = rules.sticky.as_ref()?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key?.0);
        let mark = |kind: &str, what: &str| {
            // No part of it has a zero byte.
            let text = [kind, &*service.label, what].join("\0");
            hmac::sign(&key, text.as_bytes())
        };
        let backends = (0..).zip(&service.backends);
        let usable = backends.filter(|(_, backend)| backend.usable);
        let instances = usable.map(|(index, backend)| Instance {
            backend: index,
            address: backend.address,
            group: Group::of(backend.canary),
            mark: hex(mark("instance", &backend.address.to_string()).as_ref()),
        });
        let group = |group, name| (group, hex(mark("group", name).as_ref()));
        Some(Self {
            name: name.clone(),
            path: rules.path.clone().unwrap_or_else(|| "/".to_owned()),
            instances: instances.collect(),
            groups: [group(Group::Rest, "rest"), group(Group::Canary, "canary")],
            empty: empty(service),
        })
    }

    /// What a request with these fields shows: of several cookies the first one that names an instance.
    pub(super) fn read(&self, headers: &HeaderMap) -> Shown {
        let mut shown = Shown::default();
        for value in self.values(headers) {
            let Some((mark, group)) = value.split_at_checked(size_of::<Mark>()) else {
                continue;
            };
            if let Some(known) = self.groups.iter().find(|(_, mark)| mark == group) {
                let mut instances = (0..).zip(&self.instances);
                let instance = instances.find(|(_, instance)| instance.mark == mark);
                shown = Shown {
                    instance: instance.map(|(index, _)| index),
                    group: Some(known.0),
                };
                if shown.instance.is_some() {
                    break;
                }
            }
        }
        shown
    }

    /// Where the client goes on, unless the request is for the group `forced`. One whose instance is gone stays in its group.
    pub(super) fn wish(&self, shown: Shown, forced: Option<Group>) -> Wish {
        let instance = self.instance(shown);
        // The instance may have become one of the others since.
        let group = instance.map_or(shown.group, |it| Some(it.group));
        let group = group.filter(|group| forced.is_some() || Some(*group) != self.empty);
        let stays = group.is_some() && forced.is_none_or(|forced| Some(forced) == group);
        Wish {
            group: forced.or(group),
            backend: instance.filter(|_| stays).map(|it| it.backend),
        }
    }

    fn instance(&self, shown: Shown) -> Option<&Instance> {
        self.instances.get(usize::try_from(shown.instance?).ok()?)
    }

    /// Keeps the client at `backend`, which answered, unless that is what it showed.
    pub(super) fn tell(
        &self,
        headers: &mut HeaderMap,
        shown: Shown,
        backend: Option<SocketAddr>,
        secure: bool,
    ) {
        // A newer table has it, if this one has not: then the next answer tells.
        let known = |instance: &&Instance| Some(instance.address) == backend;
        let Some(instance) = self.instances.iter().find(known) else {
            return;
        };
        let before = self.instance(shown).map(|it| it.address);
        if (before, shown.group) == (backend, Some(instance.group)) {
            return;
        }
        let group = self.groups.iter().find(|(it, _)| *it == instance.group);
        let group = group.map_or(&[][..], |(_, mark)| mark);
        let (name, path) = (self.name.as_bytes(), self.path.as_bytes());
        let secure: &[u8] = if secure { b"; Secure" } else { b"" };
        let rest: &[u8] = b"; HttpOnly; SameSite=Lax";
        let cookie = [
            name,
            b"=",
            &instance.mark,
            group,
            b"; Path=",
            path,
            rest,
            secure,
        ];
        if let Ok(cookie) = HeaderValue::from_bytes(&cookie.concat()) {
            headers.append(header::SET_COOKIE, cookie);
            // A cache would give the cookie to others.
            let private = HeaderValue::from_static("private");
            headers.append(header::CACHE_CONTROL, private);
        }
    }

    /// Takes the cookie out of a request: it is none of the service's business.
    pub(super) fn take(&self, headers: &mut HeaderMap) {
        if self.values(headers).next().is_none() {
            return;
        }
        let fields = headers.get_all(header::COOKIE).iter();
        let left: Vec<_> = fields.filter_map(|field| self.without(field)).collect();
        headers.remove(header::COOKIE);
        for field in left {
            headers.append(header::COOKIE, field);
        }
    }

    /// What is left of a Cookie field, as it stands there.
    fn without(&self, field: &HeaderValue) -> Option<HeaderValue> {
        let pairs = field.as_bytes().split(|&byte| byte == b';');
        let others: Vec<_> = pairs.filter(|pair| self.value_of(pair).is_none()).collect();
        let others = others.join(&b';');
        let others = others.trim_ascii_start();
        let field = HeaderValue::from_bytes(others).ok();
        field.filter(|field| !field.is_empty())
    }

    /// The values of all cookies of our name.
    fn values<'h>(&self, headers: &'h HeaderMap) -> impl Iterator<Item = &'h [u8]> {
        let fields = headers.get_all(header::COOKIE).iter();
        let pairs = fields.flat_map(|field| field.as_bytes().split(|&byte| byte == b';'));
        pairs.filter_map(|pair| self.value_of(pair))
    }

    /// The value in `pair`, if its name is ours.
    fn value_of<'p>(&self, pair: &'p [u8]) -> Option<&'p [u8]> {
        let rest = pair.trim_ascii_start().strip_prefix(self.name.as_bytes())?;
        Some(rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii())
    }
}

/// The group that gets nobody by its turn, while the other one has backends.
fn empty(service: &RouteService) -> Option<Group> {
    let (empty, other) = match service.rules.as_ref()?.canary.as_ref()?.share {
        0 => (Group::Canary, Group::Rest),
        WHOLE => (Group::Rest, Group::Canary),
        _ => return None,
    };
    let mut takers = service
        .backends
        .iter()
        .filter(|it| it.usable && it.weight > 0);
    takers
        .any(|it| Group::of(it.canary) == other)
        .then_some(empty)
}

/// As many digits as there is room for.
fn hex<const DIGITS: usize>(bytes: &[u8]) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    digits
}

const HEX: &[u8; 16] = b"0123456789abcdef";

#[cfg(test)]
mod tests;
