//! The two maps of one family, entry by entry and as a whole.

use std::{
    collections::HashSet,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::maps::{HashMap, MapData};
use lb_common::packet::{Flow, Hop, Reply};
use lb_sys::bpf::Batches;

use super::entry::{Ends, Family, Peer, flow, reply};
use crate::{Error, Programs, error::there};

/// The two maps of one family.
pub(super) struct Maps<F: Family> {
    flows: HashMap<MapData, F::FlowKey, Flow>,
    replies: HashMap<MapData, F::ReplyKey, Reply>,
    pub(super) flows_fd: OwnedFd,
    pub(super) replies_fd: OwnedFd,
    /// Flows whose clients' sides may have ended them, as the last collection found.
    pub(super) ending: HashSet<Ends>,
}

impl<F: Family> Maps<F> {
    pub(super) fn open(programs: &Programs) -> Result<Self, Error> {
        Ok(Self {
            flows: programs.map(F::FLOWS)?,
            replies: programs.map(F::REPLIES)?,
            flows_fd: programs.descriptor(F::FLOWS)?,
            replies_fd: programs.descriptor(F::REPLIES)?,
            ending: HashSet::new(),
        })
    }

    pub(super) fn each_flow(
        fd: &OwnedFd,
        mut told: impl FnMut(Ends, Flow) -> Result<(), Error>,
    ) -> Result<(), Error> {
        walk(fd, F::FLOWS, |key, value| told(F::ends(key), flow(value)))
    }

    pub(super) fn each_reply(
        fd: &OwnedFd,
        mut told: impl FnMut(Peer, Ends, Reply) -> Result<(), Error>,
    ) -> Result<(), Error> {
        walk(fd, F::REPLIES, |key, value| {
            let (peer, reply) = (F::peer(key), reply(value));
            told(peer, Ends::of(&reply, &peer, F::V6), reply)
        })
    }

    pub(super) fn find(&self, ends: &Ends) -> Result<Option<Flow>, Error> {
        let Some(key) = F::flow_key(ends) else {
            return Ok(None);
        };
        there(self.flows.get(&key, 0)).map_err(Error::map("read", F::FLOWS))
    }

    pub(super) fn answers(&self, peer: &Peer) -> Result<Option<Reply>, Error> {
        let Some(key) = F::reply_key(peer) else {
            return Ok(None);
        };
        let found = there(self.replies.get(&key, 0)).map_err(Error::map("read", F::REPLIES))?;
        Ok(found.map(without_hop))
    }

    pub(super) fn remove_flow(&mut self, ends: &Ends) -> Result<u64, Error> {
        let Some(key) = F::flow_key(ends) else {
            return Ok(0);
        };
        let removed =
            there(self.flows.remove(&key)).map_err(Error::map("remove from", F::FLOWS))?;
        Ok(removed.is_some().into())
    }

    pub(super) fn remove_reply(&mut self, peer: &Peer) -> Result<u64, Error> {
        let Some(key) = F::reply_key(peer) else {
            return Ok(0);
        };
        let removed =
            there(self.replies.remove(&key)).map_err(Error::map("remove from", F::REPLIES))?;
        Ok(removed.is_some().into())
    }
}

/// As walks tell of it: the way to the client is no part of what is compared, and the programs look for it anew now and then.
fn without_hop(reply: Reply) -> Reply {
    Reply {
        spare: 0,
        hop: Hop::default(),
        ..reply
    }
}

/// Whether both are of one flow: ends alone may be those of one before.
pub(super) fn belong(flow: &Flow, peer: &Peer, reply: &Reply) -> bool {
    (flow.backend, flow.generation) == (reply.backend, reply.generation)
        && flow.local_port.host() == peer.local_port
}

fn walk(
    map: &OwnedFd,
    name: &'static str,
    mut told: impl FnMut(&[u8], &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = || Error::system("read", name);
    let mut batches = Batches::new(map.as_fd()).map_err(failed())?;
    while let Some(entries) = batches.step().map_err(failed())? {
        for (key, value) in entries {
            told(key, value)?;
        }
    }
    Ok(())
}
