//! What a connect of one client to one service would do, and why.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use axum::{
    Extension, Json,
    extract::{Query, State, rejection::QueryRejection},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{
    compose::balance,
    guard::{Access, Actor},
    published,
    refusals::{Failed, asked, no_service, refused},
    router::Desk,
};
use crate::{
    clients::{Clients, Standing, cookie_here, cookie_of},
    desired::{Explanation, explain},
    snapshot::{Service, ServiceName, Snapshot},
    stats::{Kept, Stats},
    views::{View, Views},
    vip::Pools,
};

/// The path.
pub(crate) const EXPLAIN_PATH: &str = "/api/v1/explain";
/// The client that is the host itself.
const HOST: &str = "host";

/// What is asked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wish {
    /// `host`, the name or id of a container, or the number of a process.
    client: String,
    /// The service.
    service: String,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Told {
    /// Who would connect.
    pub(crate) client: Who,
    /// What to.
    pub(crate) service: String,
    /// Its virtual address.
    pub(crate) vip: Ipv4Addr,
    /// The IPv6 twin of that; `null` where IPv6 is not served.
    pub(crate) vip6: Option<Ipv6Addr>,
    /// The ports that it answers on; empty means every port.
    pub(crate) ports: BTreeSet<u16>,
    /// How a backend is chosen.
    pub(crate) balance: String,
    /// For how long a client keeps its backend; 0 means not at all.
    pub(crate) affinity_seconds: u64,
    /// Where the client is kept, by protocol; nothing where its next flow may go to any backend that is given.
    pub(crate) kept: Vec<Kept>,
    /// Whether every source has answered: before that the kernel may hold more than is told here.
    pub(crate) complete: bool,
    /// Which view decides, and what becomes of each backend.
    #[serde(flatten)]
    pub(crate) explanation: Explanation,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Who {
    /// The process that was asked for.
    pub(crate) pid: Option<u32>,
    /// The cookie of its network namespace; `null` for the host's.
    pub(crate) cookie: Option<u64>,
    /// The container; `null` for what is in none, or in none that is known.
    pub(crate) standing: Option<Standing>,
    /// The number of its own view; `null` for that of the host.
    pub(crate) view: Option<u32>,
    /// The ranges that services ask about, of which it is in these.
    #[cfg_attr(test, schemars(with = "BTreeSet<String>"))]
    pub(crate) ranges: BTreeSet<IpNet>,
}

impl Who {
    fn host() -> Self {
        Self {
            pid: None,
            cookie: None,
            standing: None,
            view: None,
            ranges: BTreeSet::new(),
        }
    }

    fn client((cookie, standing): (u64, &Standing)) -> Self {
        Self {
            cookie: Some(cookie),
            standing: Some(standing.clone()),
            ..Self::host()
        }
    }

    /// Its addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.standing.iter().flat_map(|it| &it.addresses)
    }
}

/// `GET /api/v1/explain`. A process is told on the socket only: to look at it means to enter its namespace. Where the page is
/// published nobody but the host is.
pub(super) async fn tell(
    State(desk): State<Desk>,
    Extension(actor): Extension<Actor>,
    Extension(access): Extension<Access>,
    wish: Result<Query<Wish>, QueryRejection>,
) -> Result<Response, Response> {
    let wish = asked(wish)?;
    // Before it is looked for: whether there is such a container is not told, either.
    if access.published && wish.client != HOST {
        let why = published::EXPLANATION.to_string();
        return Err(refused(StatusCode::FORBIDDEN, why));
    }
    let clients = desk.clients.borrow().clone();
    let who = who(&wish.client, clients.as_deref(), &actor).await;
    let who = who.map_err(|(status, why)| refused(status, why))?;
    let snapshot = desk.known()?;
    let meant = meant(&snapshot, desk.pools, &wish.service);
    let (name, service) = meant.ok_or_else(|| no_service(&wish.service))?;
    if let Some(port) = place(&wish.service).and_then(|(_, port)| port)
        && !service.options.ports.is_empty()
        && !service.options.ports.contains(&port)
    {
        let why = format!(
            "{name} does not answer on port {port} of its VIP, so that a connect is refused with `unknown`: see \
             `lb-agent services {name}`"
        );
        return Err(refused(StatusCode::NOT_FOUND, why));
    }
    let silent = || Failed::Silent.answer();
    let stats = desk.read_stats().await.ok_or_else(silent)?;
    let clients = clients.unwrap_or_default();
    let cookie = who.cookie.or_else(|| cookie_here().ok());
    let cookie = cookie.ok_or_else(silent)?;
    let told = told(
        (who, cookie),
        (name, service),
        (&snapshot, &clients),
        &stats,
        desk.pools,
    );
    let mut told = told.ok_or_else(|| {
        let why = format!("{name} has no virtual address yet: see `lb-agent status`");
        refused(StatusCode::CONFLICT, why)
    })?;
    if told.affinity_seconds > 0 {
        let kept = desk.read_kept(cookie, told.vip).await;
        told.kept = kept.ok_or_else(silent)?;
    }
    Ok(Json(told).into_response())
}

/// The one service that is meant: by its VIP, or as [`Snapshot::find`] does.
pub(super) fn meant<'s>(
    snapshot: &'s Snapshot,
    pools: Pools,
    name: &str,
) -> Option<(&'s ServiceName, &'s Service)> {
    let Some((vip, _)) = place(name) else {
        return snapshot.find(name);
    };
    let mut services = snapshot.services.iter();
    let found = services.find(|(_, service)| match vip {
        IpAddr::V4(vip) => service.vip == Some(vip),
        IpAddr::V6(twin) => service.vip.and_then(|vip| pools.twin(vip)) == Some(twin),
    });
    found.map(|(name, service)| (name, &**service))
}

/// An address, with or without a port.
fn place(text: &str) -> Option<(IpAddr, Option<u16>)> {
    let with_port = || {
        let address: SocketAddr = text.parse().ok()?;
        Some((address.ip(), Some(address.port())))
    };
    text.parse().map(|ip| (ip, None)).ok().or_else(with_port)
}

async fn who(
    meant: &str,
    clients: Option<&Clients>,
    actor: &Actor,
) -> Result<Who, (StatusCode, String)> {
    if meant == HOST {
        return Ok(Who::host());
    }
    let Some(clients) = clients else {
        let why = "the Docker Engine has not told its containers yet: see `lb-agent status`";
        return Err((StatusCode::SERVICE_UNAVAILABLE, why.to_owned()));
    };
    if let Some(found) = clients.find(meant) {
        return Ok(Who::client(found));
    }
    let Ok(pid) = meant.parse() else {
        let why = format!(
            "no container {meant:?} has a network namespace of its own: see `lb-agent clients`, or say `host` for one \
             that is in the host's"
        );
        return Err((StatusCode::NOT_FOUND, why));
    };
    if !matches!(actor, Actor::Local { .. }) {
        let why = "processes are told on the host only: run `lb-agent explain` there";
        return Err((StatusCode::FORBIDDEN, why.to_owned()));
    }
    let (cookie, own) = cookie_of(pid)
        .await
        .map_err(|error| (StatusCode::NOT_FOUND, error.to_string()))?;
    Ok(Who {
        pid: Some(pid),
        cookie: (!own).then_some(cookie),
        standing: clients.by_cookie.get(&cookie).cloned(),
        ..Who::host()
    })
}

fn told(
    (mut who, cookie): (Who, u64),
    (name, service): (&ServiceName, &Service),
    (snapshot, clients): (&Snapshot, &Clients),
    stats: &Stats,
    pools: Pools,
) -> Option<Told> {
    let views = Views::of(clients, snapshot);
    let client = who.cookie.and_then(|it| views.clients.get(&it)).copied();
    let own = client.and_then(|it| views.views.get(&it.view));
    who.view = client.map(|it| it.view);
    who.ranges = own
        .map(|View { ranges, .. }| ranges.clone())
        .unwrap_or_default();
    Some(Told {
        client: who,
        service: name.to_string(),
        vip: service.vip?,
        vip6: service.vip.and_then(|vip| pools.twin(vip)),
        ports: service.options.ports.clone(),
        balance: balance(service.options.balance).to_owned(),
        affinity_seconds: service.options.affinity.as_secs(),
        kept: Vec::new(),
        complete: snapshot.complete,
        explanation: explain(
            (name, service),
            (client, Some(cookie)),
            &views,
            &stats.suspects,
            pools,
        )?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::sample;

    fn clients() -> Clients {
        let standing = Standing {
            container: "c0ffee0123456789".to_owned(),
            name: "web".to_owned(),
            networks: ["front".to_owned()].into(),
            addresses: [[172, 18, 0, 2].into()].into(),
            outside: true,
        };
        Clients {
            by_cookie: [(4107, standing)].into(),
        }
    }

    const LOCAL: Actor = Actor::Local {
        uid: 0,
        rank: crate::admin::guard::Rank::Owner,
    };

    #[tokio::test]
    async fn a_client_is_the_host_a_container_or_a_process() {
        let clients = clients();
        let cookie =
            async |meant: &str| who(meant, Some(&clients), &LOCAL).await.map(|it| it.cookie);
        assert_eq!(cookie("host").await, Ok(None));
        assert_eq!(cookie("web").await, Ok(Some(4107)));
        assert_eq!(cookie("c0ffee012345").await, Ok(Some(4107)));
        assert_eq!(cookie(&std::process::id().to_string()).await, Ok(None));
        for nobody in ["c0ffee", "webb", ""] {
            let (status, why) = cookie(nobody).await.unwrap_err();
            assert_eq!(status, StatusCode::NOT_FOUND, "{why}");
        }
    }

    #[tokio::test]
    async fn a_process_is_not_told_over_tcp_and_nobody_while_the_clients_are_unknown() {
        let remote = Actor::Remote {
            peer: "127.0.0.1:4000".parse().unwrap(),
            own: "127.0.0.1:9180".parse().unwrap(),
        };
        let pid = std::process::id().to_string();
        let refusal = who(&pid, Some(&clients()), &remote).await.unwrap_err();
        assert_eq!(refusal.0, StatusCode::FORBIDDEN);
        let refusal = who("web", None, &LOCAL).await.unwrap_err();
        assert_eq!(refusal.0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(who("host", None, &LOCAL).await, Ok(Who::host()));
    }

    #[test]
    fn a_service_is_meant_by_its_vip() {
        let snapshot = sample::snapshot();
        let pools = Pools {
            v6: Some(Default::default()),
            ..Pools::default()
        };
        let name = |text: &str| meant(&snapshot, pools, text).map(|(name, _)| name.to_string());
        let hello = Some("www_hello".to_owned());
        for text in [
            "www_hello",
            "198.18.12.7",
            "198.18.12.7:80",
            "fd62:6c62:76:1::c07",
            "[fd62:6c62:76:1::c07]:80",
        ] {
            assert_eq!(name(text), hello, "{text}");
        }
        assert_eq!(name("198.18.12.8:80"), None);
        assert_eq!(place("198.18.12.7:80").unwrap().1, Some(80));
    }

    #[test]
    fn what_is_told_has_the_addresses_and_the_view() {
        let (snapshot, clients) = (sample::snapshot(), clients());
        let found = meant(&snapshot, Pools::default(), "www_hello").unwrap();
        let web = Who::client(clients.find("web").unwrap());
        let stats = Stats::default();
        let pools = Pools::default();
        let told = told((web, 4107), found, (&snapshot, &clients), &stats, pools).unwrap();
        assert_eq!(told.vip, Ipv4Addr::new(198, 18, 12, 7));
        assert!(told.client.view.is_some());
        let verdicts = told.explanation.backends.iter();
        let verdicts: Vec<_> = verdicts.map(|it| it.verdict.as_str()).collect();
        assert_eq!(verdicts, ["given", "l4_down", "draining"]);
        let db = meant(&snapshot, Pools::default(), "db").unwrap();
        assert_eq!(
            super::told((Who::host(), 1), db, (&snapshot, &clients), &stats, pools),
            None
        );
    }
}
