//! The stage that gives out VIPs.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

use lb_agent::{
    discover::consul::Config,
    snapshot::ServiceName,
    vip::{self, Entry, Order, Pool, Vips, Wanted},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{SOON, config};
use crate::support::BOUND;

/// Names for which thirteen addresses are too few to have no collisions.
pub(crate) const LETTERS: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

/// A running VIP stage.
pub(crate) struct Vip {
    orders: mpsc::Sender<vip::Request>,
    names: watch::Sender<Option<Wanted>>,
    pub(crate) vips: watch::Receiver<Option<Arc<Vips>>>,
    stop: CancellationToken,
    stage: JoinHandle<Result<(), vip::Error>>,
    _directory: tempfile::TempDir,
}

impl Vip {
    pub(crate) fn start(address: &str) -> Self {
        Self::start_as(config(address))
    }

    pub(crate) fn start_as(consul: Config) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (orders, taken) = mpsc::channel(4);
        let (names, wanted) = watch::channel(None);
        let (out, vips) = watch::channel(None);
        let stop = CancellationToken::new();
        let config = vip::Config {
            // Thirteen addresses: collisions are the rule.
            pool: Pool::try_from("10.0.0.0/28".parse::<ipnet::Ipv4Net>().unwrap()).unwrap(),
            datacenter: "dc1".to_owned(),
            quarantine: Duration::from_secs(600),
            records: directory.path().join("vips.json"),
            consul: Some(consul),
        };
        let stage = tokio::spawn(vip::run(config, wanted, out, taken, stop.clone()));
        Self {
            orders,
            names,
            vips,
            stop,
            stage,
            _directory: directory,
        }
    }

    pub(crate) fn want<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let names = names
            .into_iter()
            .map(|name| (ServiceName::whole(name), None));
        self.names.send_replace(Some(Wanted::all(names.collect())));
    }

    pub(crate) async fn order(&self, order: Order) -> Result<Vec<Entry>, String> {
        let (reply, answer) = oneshot::channel();
        let request = vip::Request { order, reply };
        timeout(BOUND, self.orders.send(request))
            .await
            .unwrap()
            .unwrap();
        timeout(BOUND, answer).await.unwrap().unwrap()
    }

    pub(crate) async fn pin(&self, service: &str, address: Ipv4Addr) -> Result<Vec<Entry>, String> {
        let service = service.to_owned();
        self.order(Order::Pin { service, address }).await
    }

    pub(crate) async fn release(&self, target: &str) -> Result<Vec<Entry>, String> {
        let target = target.to_owned();
        self.order(Order::Release { target }).await
    }

    /// Waits until `name` has the VIP that is told.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        name: &str,
        told: impl Fn(Ipv4Addr) -> bool,
    ) -> impl Future<Output = Ipv4Addr> {
        let name = ServiceName::whole(name);
        let wanted = name.clone();
        let found = self.when(move |vips| vips.by_name.get(&wanted).is_some_and(|vip| told(*vip)));
        async move { found.await.by_name[&name] }
    }

    /// Waits until the VIPs are as told, and gives them.
    #[track_caller]
    pub(crate) fn when(&mut self, told: impl Fn(&Vips) -> bool) -> impl Future<Output = Arc<Vips>> {
        let caller = std::panic::Location::caller();
        async move {
            let told = |vips: &Option<Arc<Vips>>| vips.as_ref().is_some_and(|vips| told(vips));
            let found = timeout(BOUND, self.vips.wait_for(told)).await;
            let found = found.map(|vips| vips.unwrap().clone().unwrap());
            found.unwrap_or_else(|_| panic!("{caller}: still {:#?}", *self.vips.borrow()))
        }
    }

    /// Waits until as many names have a VIP.
    #[track_caller]
    pub(crate) fn all(
        &mut self,
        count: usize,
    ) -> impl Future<Output = BTreeMap<ServiceName, Ipv4Addr>> {
        let full = self.when(move |vips| vips.by_name.len() == count);
        async move { full.await.by_name.clone() }
    }

    /// Waits until there is a problem, and gives what is told of it.
    #[track_caller]
    pub(crate) fn problem(&mut self) -> impl Future<Output = String> {
        let told = self.when(|vips| !vips.problems.is_empty());
        async move { told.await.problems[0].to_string() }
    }

    /// Waits until nothing is left to tell.
    #[track_caller]
    pub(crate) fn settled(&mut self) -> impl Future<Output = Arc<Vips>> {
        self.when(|vips| vips.problems.is_empty())
    }

    /// Waits until every name has this VIP.
    #[track_caller]
    pub(crate) fn agrees(
        &mut self,
        all: &BTreeMap<ServiceName, Ipv4Addr>,
    ) -> impl Future<Output = Arc<Vips>> {
        self.when(move |vips| vips.by_name == *all)
    }

    pub(crate) async fn end(self) {
        self.stop.cancel();
        timeout(SOON, self.stage).await.unwrap().unwrap().unwrap();
    }
}
