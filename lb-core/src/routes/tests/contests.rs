//! Who has a name that several ask for.

use super::*;

#[test]
fn an_alias_comes_before_a_part_and_the_first_service_before_both() {
    let part = |name: &str, tag: &str| (ServiceName::part(name, tag), service(&[], &[]));
    let alias = |name: &str| (ServiceName::whole(name), service(&["www.hello"], &[]));
    // A service of the second scheme, an alias of a later one, and a part of the first scheme.
    let (found, problems) = routes([part("www", "hello"), alias("zzz"), whole("www_hello")]);
    check(&found, "www.hello", Some("www_hello"));
    assert_eq!(problems.len(), 2, "{problems:?}");
    let (found, problems) = routes([part("www", "hello"), alias("zzz")]);
    check(&found, "www.hello", Some("zzz"));
    // What is not contested stays with the part.
    check(&found, "www.hello.localhost", Some("hello_www"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    let (found, _) = routes([alias("aaa"), whole("www_hello")]);
    check(&found, "www.hello", Some("aaa"));
    check(&found, "www.hello.localhost", Some("www_hello"));
    // Of two parts with one name, too.
    let (found, problems) = routes([part("a.b", "c"), part("a", "b.c")]);
    check(&found, "a.b.c", Some("b.c_a"));
    assert_eq!(problems.len(), 1, "{problems:?}");
}

#[test]
fn whole_services_come_before_parts_and_the_contest_is_reported_once() {
    let part = (ServiceName::part("www", "hello"), service(&[], &[]));
    let (routes, problems) = routes([part, whole("www_hello")]);
    check(&routes, "www.hello", Some("www_hello"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert_eq!(problems[0].subject, "service www.hello");
    assert!(
        problems[0].message.contains("www.hello.localhost"),
        "{problems:?}"
    );
}

#[test]
fn among_equals_the_alphabetically_first_service_keeps_the_name() {
    let claim = |name| (ServiceName::whole(name), service(&["shop.example"], &[]));
    let (routes, problems) = routes([claim("b"), claim("a")]);
    check(&routes, "shop.example", Some("a"));
    assert_eq!(problems.len(), 1);
}
