//! Services that share a host name by path.

use super::*;

#[test]
fn services_share_host_names_by_path() {
    let (routes, problems) = routes([below("api", "/api"), whole("shop"), below("v1", "/api/v1")]);
    assert_eq!(problems, []);
    for host in ["shop", "shop.localhost"] {
        for (path, label) in [
            ("/", "shop"),
            ("/apis", "shop"),
            ("/api", "api"),
            ("/api/v1/x", "v1"),
        ] {
            let found = routes.find_at(host, path).map(|it| &*it.label);
            assert_eq!(found, Some(label), "{host}{path}");
        }
    }
    // Its own names are no wider.
    check(&routes, "api", None);
    let own = routes
        .find_at("api.localhost", "/api/x")
        .map(|it| &*it.label);
    assert_eq!(own, Some("api"));
    let of_v1 = routes.hosts().filter(|(_, label)| *label == "v1");
    assert!(
        of_v1
            .map(|(host, _)| host)
            .any(|host| host == "shop/api/v1")
    );
}

#[test]
fn a_path_that_two_services_ask_for_is_a_contest() {
    let (routes, problems) = routes([below("b", "/api"), below("a", "/api")]);
    assert_eq!(&*routes.find_at("shop", "/api").unwrap().label, "a");
    let [problem] = &problems[..] else {
        panic!("{problems:?}");
    };
    assert_eq!(problem.subject, "service b");
    assert!(
        problem
            .message
            .contains("shop/api, shop.localhost/api belong to service a"),
        "{problem}"
    );
}
