//! How the page looks, and whom it keeps out.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use lb_agent::admin::events::{Happened, Kind};
use serde_json::Value;

use super::{
    Stage, given, keep,
    values::{counting, front, host},
};

/// What axe finds wrong with the page as it is now, a line for each thing.
pub(super) fn barriers(stage: &Stage, axe: &str) -> Vec<String> {
    stage.browser.run(axe).unwrap();
    let script = "const done = arguments[arguments.length - 1];
        axe.run(document).then((it) => done(it.violations.flatMap((rule) =>
            rule.nodes.map((node) => `${rule.id}: ${node.html.slice(0, 160)}: ${node.failureSummary}`))),
            (error) => done([String(error)]));";
    let found = stage.browser.run_async(script).unwrap();
    let found = found.as_array().unwrap().iter();
    found
        .map(|it| it.as_str().unwrap_or_default().to_owned())
        .collect()
}

#[test]
fn every_page_is_for_everybody_in_both_schemes_and_all_widths() {
    let axe = fs::read_to_string(given("LB_AXE")).unwrap();
    let mut stage = Stage::new(host(), counting());
    stage.agent().front.send_replace(Some(front(12_000)));
    let pages = [
        ("overview", "/"),
        ("service", "/service/www_hello"),
        ("search", "/?q=shop&state=ok"),
        ("nothing", "/?q=nothing"),
        ("unknown", "/service/nobody"),
        ("events", "/events"),
    ];
    let text = |text: &str| Some(text.to_owned());
    stage.agent().events.add(Happened {
        kind: Kind::Backend,
        subject: "instance dock-1/web-3 of service www_hello".to_owned(),
        from: text("usable"),
        to: text("l4_down"),
        cause: text("connection refused"),
        actor: None,
    });
    for (name, path) in pages {
        stage.go(path);
        stage.awaits_script();
        for (scheme, dark) in [("light", false), ("dark", true)] {
            for width in [400, 1600] {
                stage.browser.look(width, 1000, dark).unwrap();
                let place = format!("{name} {scheme} {width}");
                let found = barriers(&stage, &axe);
                assert!(found.is_empty(), "{place}: {found:#?}");
                // Nobody has to scroll sideways.
                let wide = stage.says("document.documentElement.scrollWidth");
                assert!(
                    wide.as_u64().unwrap() <= u64::from(width),
                    "{place}: {wide}"
                );
                let ink = "getComputedStyle(document.body).backgroundColor";
                let paper = if dark {
                    "rgb(20, 24, 28)"
                } else {
                    "rgb(255, 255, 255)"
                };
                assert_eq!(stage.says(ink), Value::from(paper), "{place}");
                let high = stage.says("document.documentElement.scrollHeight");
                let high = u32::try_from(high.as_u64().unwrap()).unwrap();
                stage.browser.look(width, high, dark).unwrap();
                let picture = stage.browser.screenshot().unwrap();
                keep(&picture, &format!("{name}-{scheme}-{width}.png"));
            }
        }
        // An unknown service is not found.
        stage.console_has_only(&["/service/nobody"]);
    }
    stage.end();
}

#[test]
fn the_pictures_of_the_documents_are_of_this_page() {
    let mut stage = Stage::new(host(), counting());
    stage.browser.look(1280, 1130, false).unwrap();
    stage.go("/");
    // Every point of the graphs is there: the lines begin at the left.
    let full = "[...document.querySelectorAll('.list .spark path')].every((it) => it.getAttribute('d').startsWith('M1 '))";
    let start = Instant::now();
    while stage.says(full) != true {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "no line is whole"
        );
        let seconds = start.elapsed().as_millis();
        let requests = 12_000 + u64::try_from(seconds / 8).unwrap();
        stage.agent().front.send_replace(Some(front(requests)));
    }
    for (name, dark) in [("page-light.png", false), ("page-dark.png", true)] {
        stage.browser.look(1280, 1130, dark).unwrap();
        stage.go("/");
        stage.awaits_script();
        let picture = stage.browser.screenshot().unwrap();
        assert!(picture.len() < 300_000, "{} bytes", picture.len());
        keep(&picture, name);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/images");
        if std::env::var_os("LB_WRITE_DOCS").is_some() {
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(name), &picture).unwrap();
        }
        assert!(folder.join(name).exists(), "run this with LB_WRITE_DOCS=1");
    }
    stage.end();
}

#[test]
fn without_scripts_the_page_reads_and_searches() {
    let mut stage = Stage::new(host(), counting());
    let off = serde_json::json!({ "value": true });
    stage
        .browser
        .devtools("Emulation.setScriptExecutionDisabled", off)
        .unwrap();
    stage.go("/");
    let text = |stage: &Stage| stage.says("document.body.innerText").to_string();
    let all = text(&stage);
    for part in [
        "running on the last good table",
        "none of 1 instance can be used",
        "replication is 412 s behind",
        "lb-agent drain www_hello/INSTANCE",
    ] {
        assert!(all.contains(part), "no {part}: {all}");
    }
    assert_eq!(
        stage.says("document.getElementById('live').textContent"),
        ""
    );
    stage.browser.click("#q").unwrap();
    stage.browser.press("shop\u{e007}").unwrap();
    stage.awaits("document.body.innerText.includes('1 found')");
    assert!(text(&stage).contains("shop_api"));
    assert!(!text(&stage).contains("redis-1"));
    stage.end();
}

#[test]
fn a_name_that_is_markup_stays_a_text() {
    let mut stage = Stage::new(crate::values::snapshot(), crate::values::figures);
    stage.go("/");
    stage.awaits_script();
    let name = "<script>alert(1)</script>";
    let heads =
        "[...document.querySelectorAll('section.service h2')].map((it) => it.textContent).join()";
    let heads = stage.says(heads).to_string();
    assert!(heads.contains(name), "{heads}");
    let scripts = "[...document.scripts].map((it) => it.getAttribute('src')).join()";
    assert_eq!(stage.says(scripts), "/assets/page.js,/assets/actions.js");
    assert_eq!(stage.says("document.querySelectorAll('pre b').length"), 0);
    // Its link leads to its section, and its own page is there.
    stage.go("/service/%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    stage.awaits("document.querySelector('h2').textContent.includes('<script>alert(1)')");
    stage.console_has_only(&[]);
    stage.end();
}
