//! What people see of the stage.

use std::{collections::BTreeMap, sync::Arc};

use lb_common::packet::packet_map as map;
use lb_packet::{Fill, Role};

use super::{
    super::{
        Channels, Seen,
        seen::{Device, Hook, Traffic},
    },
    SUBJECT, Stage,
};
use crate::catalog::Problem;

impl Stage {
    fn maps(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let limits = self.programs.limits();
        let (v4, v6) = (self.collected.v4, self.collected.v6);
        let room = |fill: Fill| u64::from(fill.room);
        let mut maps = BTreeMap::from([
            (map::FLOWS4, (v4.flows, room(v4))),
            (map::REPLIES4, (v4.replies, room(v4))),
            (map::FLOWS6, (v6.flows, room(v6))),
            (map::REPLIES6, (v6.replies, room(v6))),
        ]);
        // Before the first collection.
        maps.retain(|_, (_, room)| *room > 0);
        let endpoints = self.publisher.endpoints().count() as u64;
        maps.insert(map::ENDPOINTS, (endpoints, limits.services.into()));
        let targets = self.publisher.targets().count() as u64;
        maps.insert(map::TARGETS, (targets, limits.backends.into()));
        maps
    }

    /// Shows how it is.
    pub(super) fn tell(&self, channels: &Channels) {
        let mut problems = self.wish.problems.clone();
        problems.extend_from_slice(&self.refused);
        let configured = self.programs.problems().iter();
        problems.extend(configured.map(|it| Problem::new(SUBJECT, it.clone())));
        problems.extend(self.moved());
        let troubles = self.troubles.iter();
        problems.extend(troubles.map(|it| Problem::new(SUBJECT, it.text())));
        channels.problems.send_if_modified(|old| {
            let changed = *old != problems;
            *old = problems;
            changed
        });
        let mut services: BTreeMap<_, Traffic> = BTreeMap::new();
        for (key, traffic) in &self.counted.endpoints {
            if let Some(name) = self.wish.owners.get(key) {
                *services.entry(name.clone()).or_default() += *traffic;
            }
        }
        let seen = Seen {
            error: None,
            devices: self.devices(),
            fates: self.counted.fates.clone(),
            services,
            strays: self.moves.strays(),
            ended_flows: self.moves.all_ended(),
            backends: self.counted.backends.clone(),
            maps: self.maps(),
        };
        channels.seen.send_replace(Arc::new(seen));
    }

    /// The addresses that the programs were loaded for are not those that would be taken now.
    fn moved(&self) -> Option<Problem> {
        let packet = &self.config.packet;
        let card = packet.cards.first()?;
        let now = self.place.sources(card);
        let v4 = packet.source.or(now.v4);
        let v6 = packet.source6.or(now.v6);
        let moved = v4.is_some() && v4 != self.sources.v4 || v6.is_some() && v6 != self.sources.v6;
        moved.then(|| {
            let message = format!("the address of {card} has changed since the agent started, and backends of other hosts are sent packets from the old one; restart the agent, or name the address with [packet] source");
            Problem::new(SUBJECT, message)
        })
    }

    fn devices(&self) -> Vec<Device> {
        let attached = self.programs.attached().iter();
        let mut devices: Vec<_> = attached
            .map(|it| Device {
                name: it.device.clone(),
                role: role(it.role).to_owned(),
                hooks: it
                    .hooks
                    .iter()
                    .map(|hook| Hook {
                        program: hook.program.to_owned(),
                        how: hook.how.as_str().to_owned(),
                        in_place: self.in_place.get(&(it.index, hook.program)).copied(),
                    })
                    .collect(),
                fallback: it.fallback.clone(),
                error: self.faults.get(&it.device).cloned(),
            })
            .collect();
        for (name, error) in &self.faults {
            if devices.iter().all(|it| it.name != *name) {
                let is_card = self.config.packet.cards.contains(name);
                devices.push(Device {
                    name: name.clone(),
                    role: if is_card { CARD } else { CLIENT }.to_owned(),
                    hooks: Vec::new(),
                    fallback: None,
                    error: Some(error.clone()),
                });
            }
        }
        devices.sort_by(|a, b| (&a.role, &a.name).cmp(&(&b.role, &b.name)));
        devices
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Card { .. } => CARD,
        Role::Client => CLIENT,
    }
}

const CARD: &str = "card";
const CLIENT: &str = "client";
