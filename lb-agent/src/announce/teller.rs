//! Tells who is the owner: as a value, in the log, as an event, and as a figure.

use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Announcing, Metrics, Status, elect::Me, moment::Moment};
use crate::admin::events::{Events, Happened, Kind};

/// Whom the election tells.
#[derive(Debug)]
pub(super) struct Teller {
    announcing: watch::Sender<Announcing>,
    events: Events,
    metrics: Arc<Metrics>,
    status: watch::Sender<Status>,
}

impl Teller {
    pub(super) fn new(
        announcing: watch::Sender<Announcing>,
        events: Events,
        metrics: Arc<Metrics>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self {
            announcing,
            events,
            metrics,
            status,
        }
    }

    /// This host is the owner, until then if nothing more is told.
    pub(super) fn mine(&mut self, me: &Me, until: Option<Moment>) {
        if self.announcing.borrow().mine {
            return;
        }
        let before = self.announcing.borrow().owner.clone();
        self.metrics.takeovers.fetch_add(1, Ordering::Relaxed);
        info!(owner = %me.name(), "took over: this host answers for the VIPs");
        self.happened("took over", before, None);
        self.announcing.send_replace(Announcing {
            owner: Some(me.name()),
            mine: true,
            since: Some(SystemTime::now()),
            until,
        });
    }

    /// This host may stay the owner for longer, if it is.
    pub(super) fn renewed(&mut self, until: Moment) {
        self.announcing.send_if_modified(|announcing| {
            let is_news = announcing.mine && announcing.until != Some(until);
            if is_news {
                announcing.until = Some(until);
            }
            is_news
        });
    }

    /// Another host is the owner, or nobody.
    pub(super) fn others(&mut self, owner: Option<String>) {
        let before = self.announcing.borrow().clone();
        if before.mine {
            self.lost(match owner {
                Some(_) => "another host has the lock",
                None => "somebody took the lock away",
            });
        }
        if before.owner == owner && before.since.is_some() && !before.mine {
            return;
        }
        if let Some(owner) = &owner {
            info!(%owner, "another host answers for the VIPs");
        }
        self.announcing.send_replace(Announcing {
            owner,
            since: Some(SystemTime::now()),
            ..Announcing::default()
        });
    }

    /// This host is not the owner any more, if it was.
    pub(super) fn lost(&mut self, why: &str) {
        let before = self.announcing.borrow().clone();
        if !before.mine {
            // Who else is, is not known either.
            self.nobody();
            return;
        }
        warn!(why, "lost: this host answers for the VIPs no more");
        self.nobody();
        self.happened("lost", before.owner, Some(why));
    }

    /// What keeps the election from going on.
    pub(super) fn trouble(&mut self, trouble: Option<String>) {
        let is_new = self.status.borrow().election != trouble;
        if !is_new {
            return;
        }
        if let Some(trouble) = &trouble {
            warn!("nobody can be elected to announce VIPs: {trouble}");
            if self.announcing.borrow().since.is_none() {
                self.nobody();
            }
        }
        self.status.send_modify(|status| status.election = trouble);
    }

    fn nobody(&mut self) {
        self.announcing.send_if_modified(|announcing| {
            let nobody = Announcing {
                since: Some(SystemTime::now()),
                ..Announcing::default()
            };
            let is_news = announcing.owner.is_some() || announcing.since.is_none();
            if is_news {
                *announcing = nobody;
            }
            is_news
        });
    }

    fn happened(&self, to: &str, from: Option<String>, cause: Option<&str>) {
        self.events.add(Happened {
            kind: Kind::Announce,
            subject: "announcing".to_owned(),
            from,
            to: Some(to.to_owned()),
            cause: cause.map(str::to_owned),
            actor: None,
        });
    }
}
