//! Orders about addresses: what is asked of Consul first, and what is done here then.

use std::net::Ipv4Addr;

use tokio::sync::oneshot;
use tracing::info;

use super::{
    super::{
        Error, Request, Wanted,
        allocator::Left,
        order::{self, Entry, Order},
        record::Owner,
        share,
    },
    Stage,
    clock::now,
};

/// An order that Consul has answered.
pub(in crate::vip) struct Change {
    what: What,
    result: Result<(), String>,
    reply: oneshot::Sender<Result<Vec<Entry>, String>>,
}

/// What an order changes.
#[derive(Clone)]
enum What {
    Pin(Ipv4Addr, Owner),
    /// The record, and the quarantine of an address that was not in use then.
    Release(Entry, Option<Left>),
}

impl Stage {
    /// Answers an order, or asks Consul to carry it out first.
    pub(in crate::vip) async fn take(
        &mut self,
        request: Request,
        wanted: &Wanted,
    ) -> Result<(), Error> {
        let names = &*wanted.names;
        let Request { order, reply } = request;
        let what = match order {
            Order::List => {
                // Whoever asked may have gone meanwhile, here and below.
                let _ = reply.send(Ok(self.allocator.list(names)));
                return Ok(());
            }
            Order::Pin { service, address } => {
                let name = order::named(&service, names, &self.allocator);
                order::may_pin(&name, address, &self.allocator).map(|()| {
                    let pinned = true;
                    What::Pin(
                        address,
                        Owner {
                            pinned,
                            ..Owner::new(name, now())
                        },
                    )
                })
            }
            Order::Release { target } => {
                order::may_release(&target, names, &self.allocator).map(|entry| {
                    let quarantine = self.allocator.left().get(&entry.address).cloned();
                    What::Release(entry, quarantine)
                })
            }
        };
        let what = match what {
            Ok(what) => what,
            Err(why) => {
                let _ = reply.send(Err(why));
                return Ok(());
            }
        };
        let records = self.allocator.records();
        // What is recorded here alone is nothing to Consul.
        let keys = self.keys.clone().filter(|_| match &what {
            What::Pin(..) => true,
            What::Release(entry, _) => records.contains_key(&entry.address),
        });
        let Some(keys) = keys else {
            let result = Ok(());
            let change = Change {
                what,
                result,
                reply,
            };
            return self.carry_out(change, wanted).await;
        };
        let known = records.clone();
        self.changes.spawn(async move {
            let result = match &what {
                What::Pin(address, owner) => {
                    let of_it = known.iter().filter(|(_, other)| {
                        other.as_ref().is_some_and(|other| other.name == owner.name)
                    });
                    let former: Vec<_> = of_it.map(|(address, _)| *address).collect();
                    share::pin(&keys, *address, owner, &former).await
                }
                What::Release(entry, _) => {
                    let owner = known.get(&entry.address).and_then(Option::as_ref);
                    share::release(&keys, entry.address, owner).await
                }
            };
            Change {
                what,
                result,
                reply,
            }
        });
        Ok(())
    }

    /// Does here what an order has done in Consul, and answers it.
    pub(in crate::vip) async fn carry_out(
        &mut self,
        change: Change,
        wanted: &Wanted,
    ) -> Result<(), Error> {
        let Change {
            what,
            result,
            reply,
        } = change;
        if let Err(why) = result {
            let _ = reply.send(Err(why));
            return Ok(());
        }
        let entry = match what {
            What::Pin(address, owner) => {
                info!(service = %owner.name, vip = %address, "VIP pinned by an operator");
                self.allocator.record(address, owner);
                // Here, so that the answer says what is so.
                self.allocator.allocate(wanted, self.clock.now());
                let mut entries = self.allocator.list(&wanted.names).into_iter();
                entries.find(|entry| entry.address == address)
            }
            What::Release(entry, quarantine) => {
                let service = entry.service.as_deref().unwrap_or_default();
                info!(service, vip = %entry.address, how = %entry.how, "VIP released by an operator");
                // The store may have told of it already.
                self.allocator.release(entry.address, self.clock.now());
                if let Some(quarantine) = quarantine {
                    self.allocator.end_quarantine(entry.address, &quarantine);
                }
                Some(entry)
            }
        };
        self.save().await?;
        let unsaved = self
            .records
            .problem
            .as_ref()
            .filter(|_| self.keys.is_none());
        let answer = match unsaved {
            // It holds until the agent ends, which is not what was asked for.
            Some(problem) => Err(problem.to_string()),
            None => Ok(entry.into_iter().collect()),
        };
        let _ = reply.send(answer);
        Ok(())
    }
}
