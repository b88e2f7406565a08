//! What others ask the stage, and how they wait for its answer.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc, time::Duration};

use lb_packet::{Filter, FlowEntry, Packet, Question};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

use super::Seen;
use crate::snapshot::ServiceName;

/// Where others ask the stage.
#[derive(Clone, Debug)]
pub struct Handle {
    /// What people see of it.
    pub seen: watch::Receiver<Arc<Seen>>,
    /// Requests.
    pub requests: mpsc::Sender<Request>,
}

/// What is asked.
#[derive(Debug)]
pub enum Request {
    /// The flows that are meant.
    Flows(Meant, oneshot::Sender<Answer<List>>),
    /// To forget them, and how many there were.
    Flush(Meant, oneshot::Sender<Answer<u64>>),
    /// Where a packet would go.
    Explain(Question, oneshot::Sender<Answer<Explained>>),
    /// Packets as they come.
    Trace(Trace, oneshot::Sender<mpsc::Receiver<Told>>),
}

/// What is answered, or why not, as a sentence.
pub type Answer<T> = Result<T, String>;

/// Which flows are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meant {
    /// Those to one of these VIPs; `None` means all.
    pub vips: Option<BTreeSet<Ipv4Addr>>,
    /// Those of them that all of this fits.
    pub filter: Filter,
}

/// Flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// At most [`MOST`] of them.
    pub flows: Vec<FlowEntry>,
    /// How many more there are.
    pub left_out: u64,
}

/// Where a packet would go from a card, or from a client's device, and where in a card's own turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// By all backends: from clients' devices, and in XDP at a card.
    pub all: lb_packet::Answer,
    /// By those of this host: in tc at a card.
    pub local: lb_packet::Answer,
}

/// Which packets are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// All of this service.
    pub service: Option<ServiceName>,
    /// One of so many of all that concern VIPs; 0 means none.
    pub sample: u32,
}

/// A packet, or a gap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A packet, with the name of its device if that is known.
    Packet(Packet, Option<Arc<str>>),
    /// So many came too fast.
    Lost(u64),
}

impl Handle {
    /// Asks and waits for the answer; `None` if there is none in time.
    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(request(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, asked).await.ok().flatten()
    }

    /// The flows that are meant.
    pub async fn flows(&self, meant: Meant) -> Option<Answer<List>> {
        self.ask(|reply| Request::Flows(meant, reply)).await
    }

    /// Forgets the flows that are meant, and tells how many there were.
    pub async fn flush(&self, meant: Meant) -> Option<Answer<u64>> {
        self.ask(|reply| Request::Flush(meant, reply)).await
    }

    /// Where a packet would go.
    pub async fn explain(&self, question: Question) -> Option<Answer<Explained>> {
        self.ask(|reply| Request::Explain(question, reply)).await
    }

    /// Packets from now on, until the receiver is dropped.
    pub async fn trace(&self, trace: Trace) -> Option<mpsc::Receiver<Told>> {
        self.ask(|reply| Request::Trace(trace, reply)).await
    }
}

/// Flows in one list.
pub const MOST: usize = 10_000;
/// For the stage, which may be reading all flows. Below the patience of the commands.
const PATIENCE: Duration = Duration::from_secs(5);
