//! The pages that the navigation leads to.

use std::{fs, thread};

use lb_agent::{
    catalog::Problem,
    snapshot::Snapshot,
    vip::{self, Entry, How, Order},
};
use tokio::sync::mpsc;

use super::{Stage, acts::sign_in, given, keep, looks::barriers};
use crate::values::{figures, registered, snapshot, sockets};

/// A host whose services and containers are called as somebody would call them who means no good.
fn stage() -> Stage {
    let mut all: Snapshot = snapshot();
    let wrong = "has no VIP: the pool is full; run `lb-agent vip list` <b>now</b>";
    all.problems = vec![Problem::new("service <script>alert(1)</script>", wrong)];
    let mut stage = Stage::among(sockets(), all, || {
        let mut stats = figures();
        for service in stats.services.values_mut() {
            service.refused.no_path = 4;
        }
        stats.unknown = 2;
        stats
    });
    stage.agent().registrar.send_replace(registered());
    let mut vips = std::mem::replace(&mut stage.agent().vips, mpsc::channel(1).1);
    // It ends with the agent.
    thread::spawn(move || {
        while let Some(vip::Request { order, reply }) = vips.blocking_recv() {
            let told = match order {
                Order::List => Ok(addresses()),
                _ => Err("not here".to_owned()),
            };
            let _ = reply.send(told);
        }
    });
    stage
}

fn addresses() -> Vec<Entry> {
    let entry = |last, service: &str, how, until_unix: Option<u64>| Entry {
        address: [198, 18, 12, last].into(),
        service: Some(service.to_owned()),
        how,
        in_use: until_unix.is_none(),
        since_unix: Some(1_700_000_000),
        until_unix,
    };
    vec![
        entry(7, "www_hello", How::Hash, None),
        entry(8, "<script>alert(1)</script>", How::Pin, None),
        entry(9, "gone", How::Quarantine, Some(u64::from(u32::MAX))),
    ]
}

/// Each page, and what must be there to read.
const PAGES: [(&str, &str, &[&str]); 4] = [
    (
        "vips",
        "/vips",
        &[
            "198.18.12.7",
            "by the hash of its name",
            "<script>alert(1)</script>",
            "an operator pinned it",
        ],
    ),
    (
        "flows",
        "/flows",
        &[
            "Sign in to see who the clients are",
            "file/a at 10.0.0.1:80",
            "no-path",
            "2 to addresses",
        ],
    ),
    (
        "registrar",
        "/registrar",
        &[
            "This host is dock-1",
            "at 172.18.0.2:80, its own on the network front",
            "not at 172.19.0.2:80 on back, 192.0.2.1:8080 where the host publishes it",
            "SERVICE_WEIGHT=<script> has no effect",
            "port 443/tcp: SERVICE_IGNORE is set",
            "The token may not read which node this is",
        ],
    ),
    (
        "configuration",
        "/configuration",
        &[
            "vip.pool",
            "198.18.0.0/16",
            "CONSUL_HTTP_TOKEN",
            "***",
            "/etc/lb/lb.toml:7",
            "Has no VIP: the pool is full",
        ],
    ),
];

#[test]
fn each_place_is_for_everybody_in_both_schemes_and_all_widths() {
    let axe = fs::read_to_string(given("LB_AXE")).unwrap();
    let mut stage = stage();
    for (name, path, texts) in PAGES {
        stage.go(path);
        stage.awaits_script();
        has(&stage, texts);
        let current =
            "document.querySelector('nav.places [aria-current=page]').getAttribute('href')";
        assert_eq!(stage.says(current), path);
        looks_good(&mut stage, &axe, name);
    }
    // What who has the token sees more of.
    stage.go("/flows");
    stage.awaits_script();
    let token = stage.agent().token.clone();
    sign_in(&mut stage, &token);
    stage.awaits("document.getElementById('flow-client') !== null");
    has(
        &stage,
        &[
            "172.18.0.9:40002",
            "<script> (4711)",
            "container c0ffee001122",
        ],
    );
    looks_good(&mut stage, &axe, "flows-signed-in");
    stage.console_has_only(&[]);
    stage.end();
}

#[track_caller]
fn has(stage: &Stage, texts: &[&str]) {
    let all = stage.says("document.querySelector('main').innerText.replace(/\\s+/g, ' ')");
    let all = all.as_str().unwrap();
    for text in texts {
        assert!(all.contains(text), "no {text}: {all}");
    }
}

/// For axe, at 400 and 1600 points, light and dark; the pictures are kept.
fn looks_good(stage: &mut Stage, axe: &str, name: &str) {
    for (scheme, dark) in [("light", false), ("dark", true)] {
        for width in [400, 1600] {
            stage.browser.look(width, 1000, dark).unwrap();
            let place = format!("{name} {scheme} {width}");
            let found = barriers(stage, axe);
            assert!(found.is_empty(), "{place}: {found:#?}");
            let wide = stage.says("document.documentElement.scrollWidth");
            assert!(
                wide.as_u64().unwrap() <= u64::from(width),
                "{place}: {wide}"
            );
            let scripts = "[...document.scripts].map((it) => it.getAttribute('src')).join()";
            assert_eq!(
                stage.says(scripts),
                "/assets/page.js,/assets/actions.js",
                "{place}"
            );
            let high = stage.says("document.documentElement.scrollHeight");
            let high = u32::try_from(high.as_u64().unwrap()).unwrap();
            stage.browser.look(width, high, dark).unwrap();
            let picture = stage.browser.screenshot().unwrap();
            keep(&picture, &format!("{name}-{scheme}-{width}.png"));
        }
    }
}

#[test]
fn the_places_are_reached_by_keyboard_and_read_without_scripts() {
    let mut stage = stage();
    stage.go("/");
    stage.awaits_script();
    // From the head on, by the tabulator alone.
    for (_, path, _) in PAGES {
        let here = format!("document.activeElement.getAttribute('href') === '{path}'");
        let mut presses = 0;
        while stage.says(&here) != true {
            stage.browser.press("\u{e004}").unwrap();
            presses += 1;
            assert!(presses < 20, "{path} is not reached");
        }
        assert_eq!(
            stage.says("getComputedStyle(document.activeElement).outlineStyle"),
            "solid"
        );
        stage.browser.press("\u{e007}").unwrap();
        stage.awaits(&format!("location.pathname === '{path}'"));
        stage.awaits_script();
    }
    let off = serde_json::json!({ "value": true });
    stage
        .browser
        .devtools("Emulation.setScriptExecutionDisabled", off)
        .unwrap();
    for (_, path, texts) in PAGES {
        stage.go(path);
        has(&stage, texts);
        assert_eq!(
            stage.says("document.getElementById('live').textContent"),
            ""
        );
    }
    // A filter is a link, and a form that needs no script.
    stage.go("/flows");
    stage.browser.click("#flow-service").unwrap();
    stage.browser.press("nobody\u{e007}").unwrap();
    stage.awaits("location.search === '?service=nobody'");
    has(&stage, &["0 open", "None to a service"]);
    stage.end();
}

#[test]
fn who_signs_in_finds_the_flows_of_a_client_and_who_signs_out_sees_none() {
    let mut stage = stage();
    stage.go("/flows");
    stage.awaits_script();
    let token = stage.agent().token.clone();
    sign_in(&mut stage, &token);
    stage.awaits("document.getElementById('flow-client') !== null");
    stage.browser.click("#flow-client").unwrap();
    stage.browser.press("curl\u{e007}").unwrap();
    stage.awaits("location.search.includes('client=curl')");
    stage.awaits_script();
    has(&stage, &["1 open", "172.18.0.9:40001"]);
    assert_eq!(
        stage.says("document.body.innerText.includes('172.18.0.9:40002')"),
        false
    );
    stage.browser.click("#sign button").unwrap();
    stage.awaits("document.getElementById('sign').textContent === 'Sign in'");
    stage.awaits("!document.body.innerText.includes('172.18.0.9')");
    // The stream goes on without a session: everybody reads here.
    stage.awaits("document.getElementById('live').textContent === 'live'");
    stage.console_has_only(&[]);
    stage.end();
}

#[test]
fn what_changes_on_a_place_is_there_by_itself() {
    let mut stage = stage();
    stage.go("/registrar");
    stage.awaits_script();
    let mut next = registered();
    next.error = Some("no leader".to_owned());
    next.containers = None;
    stage.agent().registrar.send_replace(next);
    stage.awaits("document.body.innerText.includes('The containers are not known yet')");
    has(&stage, &["no leader"]);
    stage.end();
}
