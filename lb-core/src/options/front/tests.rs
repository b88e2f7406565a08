mod bounds;
mod fields;

use std::sync::Arc;

use lb_front::rules::{Canary, Cors, Maintenance, ProxyProtocol, Rate, Redirect, Rules, Target};

use super::redirect::to_https;
use crate::options::{
    CheckKind, Options,
    tests::{check, check_wrong, tagged},
};

#[track_caller]
fn ruled(tag: &str, rules: Rules) {
    let front = (rules != Rules::default()).then(|| Arc::new(rules));
    check(
        tag,
        Options {
            front,
            ..Options::default()
        },
    );
}

#[test]
fn canaries_have_a_percentage_and_perhaps_a_field() {
    let canary = |share, field: Option<&str>| Rules {
        canary: Some(Canary {
            share,
            field: field.map(str::to_owned),
        }),
        ..Rules::default()
    };
    for (text, share) in [
        ("0", 0),
        ("5", 500),
        ("5%", 500),
        ("0.25", 25),
        ("0.5", 50),
        ("99.99", 9_999),
        ("100", 10_000),
        ("100.00", 10_000),
    ] {
        ruled(&format!("lb_canary={text}"), canary(share, None));
    }
    ruled(
        "lb_canary=5  header:X-Canary",
        canary(500, Some("x-canary")),
    );
    for wrong in [
        "",
        "true",
        "100.01",
        "101",
        "-1",
        "+1",
        "1.",
        ".5",
        "0.125",
        "1e1",
        "5 %",
        "5 x-canary",
        "5 header:",
        "5 header:a b",
        "5 header:host",
    ] {
        check_wrong(&format!("lb_canary={wrong}"), "such as `header:x-canary`");
    }
}

#[test]
fn maintenance_takes_a_time_and_a_notice() {
    let noticed = |retry_after_seconds, notice: Option<&str>| Rules {
        maintenance: Some(Maintenance {
            retry_after_seconds,
            notice: notice.map(str::to_owned),
        }),
        ..Rules::default()
    };
    ruled("lb_maintenance", noticed(None, None));
    ruled("lb_maintenance=true", noticed(None, None));
    ruled("lb_maintenance=10m", noticed(Some(600), None));
    ruled(
        "lb_maintenance=30  Back soon, <b>!",
        noticed(Some(30), Some("Back soon, <b>!")),
    );
    ruled("lb_maintenance=true x", noticed(None, Some("x")));
    ruled("lb_maintenance=false", Rules::default());
    let longest = "x".repeat(400);
    ruled(
        &format!("lb_maintenance=true {longest}"),
        noticed(None, Some(&longest)),
    );
    let long = format!("lb_maintenance=true {longest}x");
    for wrong in [
        // A slip of the pen must not take a service down.
        "lb_maintenance=ture",
        "lb_maintenance=",
        "lb_maintenance=false x",
        "lb_maintenance=100ms",
        "lb_maintenance=25h",
        "lb_maintenance=true a\nb",
        &long,
    ] {
        check_wrong(wrong, "`true`, `false`");
    }
}

#[test]
fn a_redirect_takes_a_status_and_a_target() {
    let to = |status, to| Rules {
        redirect: Some(Redirect { status, to }),
        ..Rules::default()
    };
    let site = |text: &str| Target::Site(text.to_owned());
    let url = |text: &str| Target::Url(text.to_owned());
    ruled("lb_redirect=off", Rules::default());
    ruled("lb_redirect=https", to(307, Target::Https(None)));
    ruled("lb_redirect=301 https", to(301, Target::Https(None)));
    ruled("lb_redirect=https:8443", to(307, Target::Https(Some(8443))));
    for text in [
        "https://www.example",
        "http://b.example:81",
        "http://www_hello",
        "http://[fd00::1]",
        "http://[fd00::1]:81",
        "http://10.0.0.1",
    ] {
        ruled(&format!("lb_redirect=308 {text}"), to(308, site(text)));
        let longer = format!("{text}/a%20b?c=d#e");
        ruled(&format!("lb_redirect=302 {longer}"), to(302, url(&longer)));
    }
    for wrong in [
        "",
        "303 https",
        "https 301",
        "https:",
        "https:0",
        "https:+1",
        "https:70000",
        "http",
        "ftp://a",
        "//a",
        "https://",
        "https:///a",
        "https://u@a",
        "https://a:b",
        "https://a?b",
        "https://[x]",
        "https://a/\u{e4}",
        "https://a/\"",
        "https://a/ b",
    ] {
        check_wrong(&format!("lb_redirect={wrong}"), "before it 301");
    }
}

#[test]
fn what_leads_to_the_same_url_by_https_is_told_from_the_rest() {
    let https = |status, port| {
        let to = Target::Https(port);
        Some(Redirect { status, to })
    };
    for (text, expected) in [
        ("https", https(307, None)),
        ("301 https:8443", https(301, Some(8443))),
        ("https://www.example", None),
        ("off", None),
    ] {
        assert_eq!(to_https(text), expected, "{text}");
    }
}

#[test]
fn what_is_off_everywhere_leaves_no_rules() {
    let options = tagged(&["lb_maintenance=false", "lb_redirect=off"]).options;
    assert_eq!(options, Options::default());
    let options = tagged(&["lb_maintenance=false", "lb_redirect=https"]).options;
    assert!(options.front.is_some_and(|it| it.redirect.is_some()));
}

#[test]
fn a_path_is_a_prefix_of_plain_segments() {
    let path = |path: &str| Rules {
        path: Some(path.to_owned()),
        ..Rules::default()
    };
    for (text, prefix) in [
        ("/api", "/api"),
        ("/api/", "/api"),
        ("/api/v1.2", "/api/v1.2"),
        ("/.well-known", "/.well-known"),
        ("/~a/b:c@d", "/~a/b:c@d"),
    ] {
        ruled(&format!("lb_path={text}"), path(prefix));
    }
    ruled("lb_path=/", Rules::default());
    let long = format!("/{}", "x".repeat(255));
    for wrong in [
        "", "api", "//", "/api//", "//api", "/a//b", "/a/../b", "/.", "/a%2fb", "/a;b", "/a b",
        "/a?b", "/a#b", "/\u{e4}", &long,
    ] {
        check_wrong(&format!("lb_path={wrong}"), "such as `/api`");
    }
}

#[test]
fn only_a_path_can_be_stripped() {
    let stripped = tagged(&["lb_strip", "lb_path=/api"]);
    assert!(stripped.problems.is_empty(), "{:?}", stripped.problems);
    assert!(stripped.options.front.unwrap().strip);
    ruled("lb_strip=false", Rules::default());
    let problems = tagged(&["lb_strip"]).problems;
    let [problem] = &problems.iter().collect::<Vec<_>>()[..] else {
        panic!("{problems:?}");
    };
    assert!(problem.message.contains("state both"), "{problem}");
    check_wrong("lb_strip=1", "true or false");
}

#[test]
fn answers_are_compressed_where_somebody_says_so() {
    let compressed = Rules {
        compress: true,
        ..Rules::default()
    };
    ruled("lb_compress", compressed.clone());
    ruled("lb_compress=true", compressed);
    ruled("lb_compress=false", Rules::default());
    for wrong in ["", "gzip", "1"] {
        check_wrong(&format!("lb_compress={wrong}"), "true or false");
    }
}

#[test]
fn a_cookie_that_keeps_clients_has_a_name() {
    let named = |name: &str| Rules {
        sticky: Some(name.to_owned()),
        ..Rules::default()
    };
    ruled("sticky_session", named("lb_sticky"));
    ruled("lb_sticky", named("lb_sticky"));
    ruled("lb_sticky=true", named("lb_sticky"));
    ruled("lb_sticky=false", Rules::default());
    ruled("lb_sticky=__Host-shop", named("__Host-shop"));
    let long = "x".repeat(65);
    for wrong in [
        "", "off", "Yes", "TRUE", "a b", "a;b", "a=b", "\u{e4}", &long,
    ] {
        check_wrong(&format!("lb_sticky={wrong}"), "the name of the cookie");
    }
}

#[test]
fn the_tag_of_the_demo_keeps_clients_where_nothing_else_is_said() {
    for (own, name) in [
        ("lb_sticky", Some("lb_sticky")),
        ("lb_sticky=shop", Some("shop")),
        ("lb_sticky=false", None),
    ] {
        let resolved = tagged(&["sticky_session", own]);
        let rules = resolved.options.front;
        let sticky = rules.as_ref().and_then(|rules| rules.sticky.as_deref());
        assert_eq!(sticky, name, "{own}");
        assert!(resolved.problems.is_empty() && resolved.domain_tags.is_empty());
    }
}

#[test]
fn instances_are_told_of_clients_and_probes_are_nobody_s() {
    let told = |how| Rules {
        proxy_protocol: Some(how),
        ..Rules::default()
    };
    ruled("lb_proxy_protocol=v1", told(ProxyProtocol::V1));
    ruled("lb_proxy_protocol=v2", told(ProxyProtocol::V2));
    ruled("lb_proxy_protocol=off", Rules::default());
    for wrong in ["", "true", "1", "2", "V2", "v3", "v1 v2"] {
        check_wrong(&format!("lb_proxy_protocol={wrong}"), "v1, v2 or off");
    }
    let after = |tags: &[&str]| {
        let resolved = tagged(tags);
        assert_eq!(resolved.problems, [].into(), "{tags:?}");
        resolved.options.check
    };
    let path = || "/x".to_owned();
    for (how, kind) in [
        ("v1", CheckKind::HttpAfter(ProxyProtocol::V1, path())),
        ("v2", CheckKind::HttpAfter(ProxyProtocol::V2, path())),
        ("off", CheckKind::Http(path())),
    ] {
        let how = format!("lb_proxy_protocol={how}");
        assert_eq!(after(&[&how, "lb_check=http /x"]), kind);
        assert_eq!(after(&[&how, "lb_check=tcp"]), CheckKind::Tcp);
        assert_eq!(after(&[&how, "lb_check=off"]), CheckKind::Off);
    }
}

#[test]
fn a_connection_that_clients_share_is_none_of_theirs() {
    let resolved = tagged(&[
        "lb_proto=h2c",
        "lb_proxy_protocol=v2",
        "lb_check=http /x",
        "lb_retries=1",
    ]);
    let [problem] = &resolved.problems.iter().collect::<Vec<_>>()[..] else {
        panic!("{:?}", resolved.problems);
    };
    assert!(
        problem.to_string().contains("remove one of the two"),
        "{problem}"
    );
    let rules = resolved.options.front.unwrap();
    assert_eq!((rules.proxy_protocol, rules.retries), (None, Some(1)));
    assert_eq!(resolved.options.check, CheckKind::Http2("/x".to_owned()));
}

#[test]
fn users_are_named_by_a_list_and_never_by_a_file() {
    let list = |name: &str| Rules {
        auth: Some(name.to_owned()),
        ..Rules::default()
    };
    ruled("lb_auth=staff", list("staff"));
    ruled("lb_auth=Ops_2-b", list("Ops_2-b"));
    ruled("lb_auth=off", Rules::default());
    let long = "x".repeat(65);
    for wrong in [
        "",
        "/etc/passwd",
        "../staff",
        "staff.htpasswd",
        "a b",
        "a\"b",
        "staff,ops",
        "\u{e4}",
        &long,
    ] {
        let resolved = tagged(&[&format!("lb_auth={wrong}")]);
        let [problem] = &resolved.problems.iter().collect::<Vec<_>>()[..] else {
            panic!("{wrong}: {:?}", resolved.problems);
        };
        assert!(problem.message.contains("lets nobody in"), "{problem}");
        // It is closed, and not open.
        assert_eq!(resolved.options.front.unwrap().auth.as_deref(), Some(""));
    }
}
