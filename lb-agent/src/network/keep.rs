//! Sees to it that what the agent laid for the pools stays: others tidy up, such as systemd-networkd, which removes
//! routes that it does not know. Without the route, packets for the pool that no hook sees would leave the host.

use std::{
    error::Error as _,
    net::{Ipv4Addr, Ipv6Addr},
    time::Duration,
};

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::{
    address::AddressMessage,
    route::{RouteHeader, RouteMessage, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder, new_connection, new_connection_with_strict_check};
use tokio::{
    select,
    sync::watch,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Error, LOOPBACK_INDEX, OUR_PROTOCOL, Share, addresses, destination, failed, foreign_address,
    foreign_route, lay, local,
};
use crate::catalog::Problem;

/// Looks now and then whether everything of these pools is there, and lays it again, until `stop`. While it cannot, `problems`
/// says so.
pub async fn keep(
    shares: Vec<Share>,
    problems: watch::Sender<Vec<Problem>>,
    stop: CancellationToken,
) {
    let mut looks = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        let found = match restore(&shares).await {
            Ok(gone) => {
                for what in gone {
                    tracing::warn!(
                        "{what} was gone and is there again; tell whoever removes it to leave routes and addresses of \
                         protocol 108 alone, for systemd-networkd by ManageForeignRoutes=no"
                    );
                }
                Vec::new()
            }
            Err(error) => vec![problem(&error)],
        };
        problems.send_if_modified(|told| {
            let changed = *told != found;
            if changed {
                *told = found;
            }
            changed
        });
    }
}

fn problem(error: &Error) -> Problem {
    let cause = error.source().map(|source| format!(": {source}"));
    let message = format!(
        "what keeps packets for VIPs on this host is gone, or cannot be looked for: {error}{}; trying again every minute",
        cause.unwrap_or_default()
    );
    Problem::new("network", message)
}

/// Lays again what is missing, and tells what that was.
///
/// # Errors
/// When the kernel refuses, or somebody else uses addresses of a pool whose route is gone.
async fn restore(shares: &[Share]) -> Result<Vec<String>, Error> {
    // To one the kernel tells only what was asked for, to the other all there is.
    let (strict, narrow, _) = new_connection_with_strict_check()?;
    let (connection, handle, _) = new_connection()?;
    let connections = [tokio::spawn(strict), tokio::spawn(connection)];
    let result = restore_by(&narrow, &handle, shares).await;
    connections.iter().for_each(JoinHandle::abort);
    result
}

async fn restore_by(
    narrow: &Handle,
    handle: &Handle,
    shares: &[Share],
) -> Result<Vec<String>, Error> {
    let addresses = addresses(handle).await?;
    let mut gone = Vec::new();
    for &Share { pool, own } in shares {
        let is_own =
            |it: &AddressMessage| it.header.index == LOOPBACK_INDEX && local(it) == Some(own);
        let has_route = has_route(narrow, pool).await?;
        let missing = [
            (!has_route).then(|| format!("the unreachable route of {pool}")),
            (!addresses.iter().any(is_own)).then(|| format!("the address {own} on lo")),
        ];
        if missing.iter().all(Option::is_none) {
            continue;
        }
        let address = foreign_address(&addresses, pool, own);
        if let Some(what) = address.or(foreign_route(handle, &addresses, pool, own).await?) {
            return Err(Error::Taken { pool, what });
        }
        lay(handle, pool, own).await?;
        gone.extend(missing.into_iter().flatten());
    }
    Ok(gone)
}

/// Whether our route of `pool` is there. The kernel looks for those of ours alone: a host may have a million others.
async fn has_route(narrow: &Handle, pool: IpNet) -> Result<bool, Error> {
    let mut ours = match pool {
        IpNet::V4(_) => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        IpNet::V6(_) => RouteMessageBuilder::<Ipv6Addr>::new().build(),
    };
    ours.header.table = RouteHeader::RT_TABLE_UNSPEC;
    ours.header.kind = RouteType::Unreachable;
    ours.header.protocol = OUR_PROTOCOL;
    let routes = narrow.route().get(ours).execute();
    let routes: Vec<RouteMessage> = routes.try_collect().await.map_err(failed("list routes"))?;
    Ok(routes.iter().any(|it| destination(it) == Some(pool)))
}

const LOOK_EVERY: Duration = Duration::from_mins(1);

#[cfg(test)]
mod tests {
    use lb_testkit::Netns;
    use tokio::time::timeout;

    use super::{super::take_pools, *};

    /// Of virtual time.
    const LIMIT: Duration = Duration::from_hours(1);

    fn shares() -> [Share; 2] {
        let share = |pool: &str, own: &str| Share {
            pool: pool.parse().unwrap(),
            own: own.parse().unwrap(),
        };
        [
            share("198.18.0.0/16", "198.18.0.1"),
            share("fd62:6c62:76:1::/64", "fd62:6c62:76:1::1"),
        ]
    }

    /// Does `work` in a network namespace that has the pools.
    fn in_host<T: Send>(work: impl AsyncFnOnce(&Netns) -> T + Send) -> T {
        let host = Netns::new("keep").unwrap();
        let job = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            runtime.block_on(async {
                take_pools(&shares()).await.unwrap();
                work(&host).await
            })
        };
        host.enter(job).unwrap()
    }

    #[test]
    fn what_others_remove_is_laid_again_and_told() {
        let told = in_host(async |host| {
            assert_eq!(restore(&shares()).await.unwrap(), Vec::<String>::new());
            host.ip("route del unreachable 198.18.0.0/16\naddr del fd62:6c62:76:1::1/128 dev lo\n")
                .unwrap();
            let told = restore(&shares()).await.unwrap();
            assert_eq!(restore(&shares()).await.unwrap(), Vec::<String>::new());
            assert!(
                host.ip("route show\n")
                    .unwrap()
                    .contains("unreachable 198.18.0.0/16")
            );
            told
        });
        assert_eq!(
            told,
            [
                "the unreachable route of 198.18.0.0/16",
                "the address fd62:6c62:76:1::1 on lo"
            ]
        );
    }

    #[test]
    fn a_route_that_cannot_be_laid_again_is_a_problem_until_it_is() {
        in_host(async |host| {
            let (problems_in, mut problems) = watch::channel(Vec::new());
            let stop = CancellationToken::new();
            let kept = tokio::spawn(keep(shares().into(), problems_in, stop.clone()));
            host.ip("route del unreachable 198.18.0.0/16\nroute add 198.18.7.0/24 dev lo\n")
                .unwrap();
            let told = timeout(LIMIT, problems.wait_for(|it| !it.is_empty()));
            let told = told.await.unwrap().unwrap().clone();
            for word in ["198.18.7.0/24", "--pool"] {
                assert!(told[0].message.contains(word), "{told:?}");
            }
            host.ip("route del 198.18.7.0/24 dev lo\n").unwrap();
            let none = timeout(LIMIT, problems.wait_for(Vec::is_empty)).await;
            none.unwrap().unwrap();
            assert_eq!(restore(&shares()).await.unwrap(), Vec::<String>::new());
            stop.cancel();
            kept.await.unwrap();
        });
    }
}
