//! Who may have the name of the page.

use super::{
    changes::{Step, take},
    *,
};

#[test]
fn only_the_service_with_a_name_of_the_page_may_be_the_page() {
    let page = [backend("127.0.0.1:9180", &[])];
    let owner = |name: ServiceName, aliases: &[&str]| (name, service(aliases, &page));
    let admin = || owner(ServiceName::whole("proxy-admin_infra"), &[]);
    let part = || owner(ServiceName::part("proxy-admin", "infra"), &[]);
    let whole = || owner(ServiceName::whole("proxy-admin"), &[]);
    let web = || owner(ServiceName::whole("web"), &[]);
    let config = |names: &[&str]| RouteConfig {
        page: vec!["127.0.0.1:9180".parse().unwrap()],
        page_names: names.iter().map(ToString::to_string).collect(),
        ..RouteConfig::default()
    };
    let check = |config: &RouteConfig, services: &[(ServiceName, Service)], expected: &[&str]| {
        let (routes, problems) = Routes::new(&snapshot(services.to_vec()), config);
        let pages = routes.services().filter(|it| !it.backends.is_empty());
        let pages: Vec<_> = pages.map(|it| &*it.label).collect();
        assert_eq!(pages, expected);
        assert_eq!(problems.len(), services.len() - expected.len());
    };
    check(&config(&[]), &[admin(), web()], &[]);
    let named = config(&["proxy-admin.infra.test", "proxy-admin.infra"]);
    check(&named, &[admin(), web()], &["proxy-admin_infra"]);
    // Where a part has the name, the whole has the same instance.
    let all = ["proxy-admin", "infra_proxy-admin"];
    check(&named, &[part(), whole(), web()], &all);
    // An alias makes an owner, too; and a name that carries an address leads to one.
    let alias = || owner(ServiceName::whole("page"), &["lb.example"]);
    check(&config(&["lb.example"]), &[alias(), web()], &["page"]);
    let carried = config(&["page.10.0.0.7.nip.io"]);
    check(&carried, &[alias(), web()], &["page"]);
}

#[test]
fn who_may_be_the_page_follows_its_names() {
    let config = RouteConfig {
        page: vec!["127.0.0.1:9180".parse().unwrap()],
        page_names: vec!["lb.example".to_owned()],
        ..RouteConfig::default()
    };
    let page = [backend("127.0.0.1:9180", &[])];
    let before = snapshot([(ServiceName::whole("page"), service(&[], &page))]);
    let mut after = before.clone();
    let aliases = Step::Alias("lb.example");
    take(&mut after, ("page", None), aliases);
    let mut follower = Follower::new(config);
    let pages = |change: &RoutesChange| change.services[0].1.as_ref().unwrap().backends.len();
    let none = BTreeSet::new();
    assert_eq!(
        pages(&follower.follow(&Snapshot::default(), &before, &none)),
        0
    );
    assert_eq!(follower.problems().count(), 1);
    assert_eq!(pages(&follower.follow(&before, &after, &none)), 1);
    assert_eq!(follower.problems().count(), 0);
}
