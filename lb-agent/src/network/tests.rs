use lb_testkit::Netns;

use super::*;

#[test]
fn the_route_and_the_address_of_a_former_pool_go_also_where_its_family_has_no_pool_any_more() {
    let share = |pool: &str, own: &str| Share {
        pool: pool.parse().unwrap(),
        own: own.parse().unwrap(),
    };
    let v4 = share("198.18.0.0/16", "198.18.0.1");
    let v6 = share("fd62:6c62:76:1::/64", "fd62:6c62:76:1::1");
    let job = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let (connection, handle, _) = new_connection().unwrap();
            tokio::spawn(connection);
            let mut laid = Vec::new();
            for shares in [&[v4, v6][..], &[v4], &[v6]] {
                take_pools(shares).await.unwrap();
                let routes = our_routes(&handle).await.unwrap().into_iter();
                let all = addresses(&handle).await.unwrap();
                let ours = all.iter().filter(|it| is_ours(it)).filter_map(local);
                laid.push((
                    routes.map(|(pool, _)| pool).collect::<Vec<_>>(),
                    ours.collect::<Vec<_>>(),
                ));
            }
            laid
        })
    };
    let laid = Netns::new("pools").unwrap().enter(job).unwrap();
    let of = |shares: &[Share]| {
        let (pools, own) = shares.iter().map(|it| (it.pool, it.own)).unzip();
        (pools, own)
    };
    assert_eq!(laid, [of(&[v4, v6]), of(&[v4]), of(&[v6])]);
}

#[test]
fn a_network_that_shares_addresses_with_the_pool_is_in_the_way() {
    for (pool, destination, expect) in [
        ("198.18.0.0/16", "198.18.0.0/16", true),
        ("198.18.0.0/16", "198.18.7.0/24", true),
        ("198.18.0.0/16", "198.18.0.0/15", true),
        ("198.18.0.0/16", "198.0.0.0/8", true),
        ("198.18.0.0/16", "198.19.0.0/16", false),
        // A VPN that takes everything takes nothing in particular.
        ("198.18.0.0/16", "128.0.0.0/1", false),
        ("198.18.0.0/16", "0.0.0.0/0", false),
        ("fd62:6c62:76:1::/64", "fd62:6c62:76::/48", true),
        ("fd62:6c62:76:1::/64", "fd62:6c62:76:1::7/128", true),
        ("fd62:6c62:76:1::/64", "fd62:6c62:76:2::/64", false),
        ("fd62:6c62:76:1::/64", "fc00::/7", false),
        ("fd62:6c62:76:1::/64", "198.18.0.0/16", false),
    ] {
        assert_eq!(
            overlaps(destination.parse().unwrap(), pool.parse().unwrap()),
            expect,
            "{destination}"
        );
    }
}
