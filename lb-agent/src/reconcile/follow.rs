//! From the newest snapshot, and from where clients stand, to what is to be done.

use std::sync::Arc;

use super::{Channels, Stage, counted};
use crate::{
    plan::Todo,
    snapshot::{Service, Snapshot, changes},
    views::{Views, ranges},
};

impl Stage {
    /// Brings the maps to the newest snapshot.
    pub(super) fn follow(&mut self, channels: &mut Channels) {
        let snapshot = channels.snapshots.borrow_and_update().clone();
        if let Some(snapshot) = snapshot {
            self.adopt(snapshot);
            self.settle(channels);
        }
    }

    fn adopt(&mut self, snapshot: Arc<Snapshot>) {
        self.ask_about(&snapshot);
        let was_complete = self.wanted.desired().complete;
        let todo = self.wanted.follow(&self.snapshot, &snapshot);
        self.look_at(todo);
        let desired = self.wanted.desired();
        if desired.complete && !was_complete {
            // What was withheld and what nobody names were only passed over until now.
            self.todo = Todo::all(&self.installed, desired);
        }
        for (name, old, new) in changes(&self.snapshot.services, &snapshot.services) {
            let met = |address| counted(&self.maps, &self.installed, address).map(|(met, _)| met);
            self.books
                .meet(name, new.map(|it| &**it), !was_complete, met);
            for (key, backend) in old.into_iter().flat_map(|service| &service.backends) {
                let address = backend.address;
                let stays = new.and_then(|service| service.backends.get(key));
                if stays.is_none_or(|it| it.address != backend.address) {
                    let owners = self.leaving.entry(address).or_default();
                    // Mostly the only one.
                    owners.reserve_exact(1);
                    owners.push((name.clone(), key.clone()));
                }
            }
        }
        self.leaving
            .retain(|address, _| !desired.backends.contains_key(address));
        self.snapshot = snapshot;
    }

    /// Goes over to where clients stand now.
    pub(super) fn look(&mut self) {
        let Some(clients) = &self.clients else {
            return;
        };
        let views = Arc::new(Views::new(clients, &self.ranges));
        let todo = self.wanted.look(&self.snapshot, &views);
        self.look_at(todo);
        if self.views.replace(views).is_none() {
            // An earlier agent's views stayed until now.
            self.todo = Todo::all(&self.installed, self.wanted.desired());
        }
    }

    fn look_at(&mut self, todo: Todo) {
        let desired = self.wanted.desired();
        self.todo.extend(match desired.complete {
            true => todo,
            false => todo.with_former_views(&self.installed, desired),
        });
    }

    /// Which ranges of addresses services ask about, where that may have changed.
    fn ask_about(&mut self, snapshot: &Snapshot) {
        let asks = |service: Option<&Arc<Service>>| {
            service.is_some_and(|it| it.options.access.nets().next().is_some())
        };
        let asked = changes(&self.snapshot.services, &snapshot.services)
            .any(|(_, old, new)| asks(old) || asks(new));
        if !asked {
            return;
        }
        let ranges = ranges(snapshot);
        if self.ranges != ranges {
            self.ranges = ranges;
            self.look();
        }
    }
}
