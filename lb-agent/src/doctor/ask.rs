//! Asks everybody who can be asked, all at once, each for a second. Nothing is changed, bound or locked.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use tokio::{
    net::{TcpStream, UdpSocket, UnixStream},
    time::timeout,
};

use super::facts::{Agent, Dns, Facts, Listener, Network};
use crate::{
    admin::report::Report,
    cli::Client,
    config::Config,
    discover::consul::look,
    dns, docker,
    host_dns::{Host, Status},
    network::{self, Share},
    sockets,
    vip::{Pool, Pools},
};

/// For each answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// For all that one is asked.
const IN_ALL: Duration = Duration::from_secs(3);

/// What those say whom `config` names. `probe` is the report whose VIPs are to be tried.
pub(super) async fn all(
    config: &Config,
    root: &Path,
    agent: Agent,
    probe: Option<&Report>,
) -> Facts {
    let is_away = agent == Agent::Away;
    let (consul, docker, dns, network, probes) = tokio::join!(
        consul(config),
        docker(config),
        dns(config, root, !is_away),
        network(config, root, is_away),
        probes(probe),
    );
    Facts {
        consul,
        docker,
        dns,
        network,
        agent,
        probes,
        ..Facts::default()
    }
}

/// The agent at `socket`: what it says, its process, and its whole report.
pub(super) async fn agent(socket: &Path) -> (Agent, Option<u32>, Option<Report>) {
    let client = Client::new(socket);
    let (report, connected) = tokio::join!(client.report(PATIENCE), UnixStream::connect(socket));
    let is_away = connected.as_ref().is_err_and(|error| {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        [ConnectionRefused, NotFound].contains(&error.kind())
    });
    let peer = connected.ok().and_then(|it| it.peer_cred().ok());
    let process = peer.and_then(|it| u32::try_from(it.pid()?).ok());
    let agent = match &report {
        Ok(report) => Agent::Answers {
            version: report.version.clone(),
            components: report.components.clone(),
            problems: report.problems.len(),
        },
        Err(_) if is_away => Agent::Away,
        Err(error) => Agent::Mute(error.to_string()),
    };
    (agent, process, report.ok())
}

async fn consul(config: &Config) -> Option<Result<look::Look, String>> {
    let consul = config.sources.consul.as_ref()?;
    let looked = timeout(IN_ALL, look::look(consul, PATIENCE)).await;
    Some(looked.unwrap_or_else(|_| {
        let places: Vec<_> = consul.addresses.iter().map(ToString::to_string).collect();
        let places = places.join(", ");
        Err(format!("Consul at {places} does not answer in time"))
    }))
}

async fn docker(config: &Config) -> Option<Result<Option<i64>, String>> {
    let docker = config.sources.docker.as_ref()?;
    let looked = timeout(IN_ALL, docker::look(&docker.address, PATIENCE)).await;
    Some(match looked {
        Ok(looked) => looked.map_err(|error| error.to_string()),
        Err(_) => Err(format!(
            "the Docker Engine at {} does not answer in time",
            docker.address
        )),
    })
}

async fn dns(config: &Config, root: &Path, has_agent: bool) -> Dns {
    if !config.dns.enabled {
        return Dns::default();
    }
    let own = config.dns.listen.first().copied().filter(|_| has_agent);
    let answer = match own {
        None => None,
        Some(own) => {
            let asked = timeout(PATIENCE, ask_resolver(own)).await;
            Some(match asked {
                Ok(asked) => asked.err().map(|error| format!("{own}: {error}")),
                Err(_) => Some(format!("{own} does not within a second")),
            })
        }
    };
    let host = match Host::new(root).status() {
        Ok(Status::Installed(own, _)) => Ok(Some(IpAddr::V4(own))),
        Ok(Status::Absent) => Ok(None),
        Err(error) => Err(error.to_string()),
    };
    let system = || pools(config).and_then(|pools| dns::system_upstreams(pools).ok());
    Dns {
        answer,
        host: Some(host),
        upstreams: config.dns.upstreams.clone().or_else(system),
    }
}

/// Any answer will do: a name that nobody has is answered, too.
async fn ask_resolver(server: SocketAddr) -> std::io::Result<()> {
    let mut message = Message::query();
    let name = Name::from_ascii("doctor.localhost.").map_err(std::io::Error::other)?;
    message.add_query(Query::query(name, RecordType::A));
    let question = message.to_vec().map_err(std::io::Error::other)?;
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(&question).await?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer).await?;
    match answer.get(..2) == question.get(..2) && length > 2 {
        true => Ok(()),
        false => Err(std::io::Error::other("it answers with something else")),
    }
}

fn pools(config: &Config) -> Option<Pools> {
    Some(Pools {
        v4: Pool::try_from(config.vip.pool).ok()?,
        v6: Some(config.vip.pool6),
    })
}

async fn network(config: &Config, root: &Path, is_away: bool) -> Network {
    // What is bound while an agent runs is its own.
    let taken = match is_away {
        true => taken(config, super::host::listeners(root)),
        false => Vec::new(),
    };
    let shares: Vec<_> = pools(config).iter().flat_map(shares).collect();
    let in_the_way = timeout(PATIENCE, network::in_the_way(&shares)).await;
    Network {
        taken,
        in_the_way: in_the_way.ok().and_then(Result::ok).unwrap_or_default(),
    }
}

fn shares(pools: &Pools) -> Vec<Share> {
    let own = pools.own();
    let v4 = Share {
        pool: pools.v4.net().into(),
        own: own.into(),
    };
    let v6 = pools.v6.zip(pools.twin(own)).map(|(pool, own)| Share {
        pool: pool.net().into(),
        own: own.into(),
    });
    [Some(v4), v6].into_iter().flatten().collect()
}

/// Those who have a port that the agent is to have, with whose it is.
fn taken(config: &Config, listeners: Vec<Listener>) -> Vec<(Listener, Option<String>)> {
    let front = config.front.enabled.then_some(&config.front);
    let tls = front.and_then(|it| it.tls.as_ref());
    let tcp = front.iter().flat_map(|it| &it.listen);
    let tcp = tcp.chain(tls.iter().flat_map(|it| &it.listen));
    let tcp = tcp.chain([&config.admin.listen]).map(|it| ("tcp", *it));
    let dns = config.dns.enabled.then_some(&config.dns.listen);
    let dns = dns.into_iter().flatten();
    let dns = dns.flat_map(|it| [("tcp", *it), ("udp", *it)]);
    let wanted: Vec<(&str, SocketAddr)> = tcp.chain(dns).collect();
    let mut taken = Vec::new();
    for it in listeners {
        let same = |ip: IpAddr| ip == it.ip || ip.is_unspecified() || it.ip.is_unspecified();
        let collides = wanted.iter().any(|(protocol, place)| {
            *protocol == it.protocol && place.port() == it.port && it.port != 0 && same(place.ip())
        });
        if collides {
            let owner = sockets::owner(it.inode);
            let owner = owner.map(|it| format!("{} (process {})", it.command, it.pid));
            taken.push((it, owner));
        }
    }
    taken
}

/// The VIPs of `report` that cannot be connected to, each with why.
async fn probes(report: Option<&Report>) -> Option<Vec<String>> {
    let services = report?.services.as_ref()?;
    let places = services.iter().filter(|it| it.usable > 0).flat_map(|it| {
        let ports = it.ports.iter();
        ports.filter_map(|port| Some((it.name.clone(), SocketAddr::new(it.vip?.into(), *port))))
    });
    let places: Vec<_> = places.collect();
    let tried = stream::iter(places).map(|(name, place)| async move {
        let failed = match timeout(PATIENCE, TcpStream::connect(place)).await {
            Ok(Ok(_)) => return None,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer within a second".to_owned(),
        };
        Some(format!("{name} at {place}: {failed}"))
    });
    let tried = tried.buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let tried = timeout(IN_ALL, tried).await;
    let late = || vec![Some("not all VIPs were tried in time".to_owned())];
    let failed = tried.unwrap_or_else(|_| late());
    Some(failed.into_iter().flatten().collect())
}

/// Connects that are tried at once.
const AT_ONCE: usize = 64;
