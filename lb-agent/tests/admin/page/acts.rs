//! What an operator does on the page, by mouse and by keyboard alone.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use lb_agent::{
    catalog::InstanceKey,
    order::{Mode, Order, OrderOutcome, OrderRequest},
    removal::{Status, Whose},
    snapshot::{Service, ServiceName, Snapshot},
};
use tokio::time::timeout;

use super::{
    Stage, keep,
    values::{counting, host},
};

const BUTTONS: &str = "document.querySelectorAll('.actions button').length";
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";
const ESCAPE: &str = "\u{e00c}";

/// A host whose operator's wish is in force.
fn ordered(id: &str, order: Order) -> Snapshot {
    let mut snapshot = host();
    let name = ServiceName::whole("www_hello");
    let mut service = Service::clone(&snapshot.services[&name]);
    let key = InstanceKey::new("dock-1", id);
    service.backends.get_mut(&key).unwrap().order = order;
    snapshot.services.insert(name, service.into());
    snapshot.number = 2;
    snapshot
}

/// Plays the stage that keeps orders: takes the next one and puts it in force.
fn obeys(stage: &mut Stage, id: &str) -> (String, Option<String>, Mode) {
    let Stage { agent, runtime, .. } = stage;
    let agent = agent.as_mut().unwrap();
    let order = agent.orders.recv();
    let OrderRequest {
        service,
        backend,
        mode,
        deadline,
        reply,
    } = runtime.block_on(async { timeout(super::SOON, order).await.unwrap().unwrap() });
    let order = Order::new(mode, deadline, SystemTime::now());
    let next = ordered(id, order);
    agent.in_maps.send_replace(Some(next.number));
    agent.snapshots.send_replace(Some(Arc::new(next)));
    let outcome = OrderOutcome {
        matched: vec![InstanceKey::new("dock-1", id)],
        order,
        snapshot: 2,
    };
    reply.send(Ok(outcome)).unwrap();
    (service, backend, mode)
}

pub(super) fn sign_in(stage: &mut Stage, token: &str) {
    stage.browser.click("#sign button").unwrap();
    stage.browser.press(&format!("{token}{ENTER}")).unwrap();
}

#[test]
fn an_instance_is_drained_by_click_and_put_back() {
    let mut stage = Stage::new(host(), counting());
    stage.go("/");
    stage.awaits_script();
    assert_eq!(stage.says(BUTTONS), 0);
    let token = stage.agent().token.clone();
    sign_in(&mut stage, &token);
    stage.awaits(&format!("{BUTTONS} > 0"));
    let row = "section[data-service=\"www_hello\"] tr[data-backend=\"dock-1/web-1\"]";
    let button = |mode: &str| format!("{row} button[data-mode={mode}]");
    stage.browser.click(&button("drain")).unwrap();
    stage.awaits("document.querySelector('dialog[open] h2').textContent === 'Drain dock-1/web-1?'");
    // To do nothing is the default.
    assert_eq!(stage.says("document.activeElement.textContent"), "Cancel");
    stage.browser.press(ENTER).unwrap();
    stage.awaits("document.querySelector('dialog') === null");
    assert!(stage.agent().orders.try_recv().is_err());

    stage.browser.click(&button("drain")).unwrap();
    stage.browser.click("dialog button[type=submit]").unwrap();
    let order = obeys(&mut stage, "web-1");
    let whose = ("www_hello".to_owned(), Some("dock-1/web-1".to_owned()));
    assert_eq!(order, (whose.0.clone(), whose.1.clone(), Mode::Drain));
    stage.awaits(&format!(
        "document.querySelector('{row}').dataset.state === 'draining'"
    ));
    stage.awaits(&format!(
        "document.querySelector('{row} .mark').textContent === 'draining'"
    ));
    stage.browser.click(&button("ready")).unwrap();
    stage.browser.click("dialog button[type=submit]").unwrap();
    assert_eq!(obeys(&mut stage, "web-1"), (whose.0, whose.1, Mode::Ready));
    stage.awaits(&format!(
        "document.querySelector('{row}').dataset.state === 'usable'"
    ));
    stage.end();
}

#[test]
fn an_instance_is_put_in_maintenance_by_click_and_shows_when_its_flows_end() {
    let mut stage = Stage::new(host(), counting());
    stage.go("/");
    stage.awaits_script();
    let token = stage.agent().token.clone();
    sign_in(&mut stage, &token);
    stage.awaits(&format!("{BUTTONS} > 0"));
    let row = "section[data-service=\"www_hello\"] tr[data-backend=\"dock-1/web-2\"]";
    let offered = format!(
        "[...document.querySelectorAll('{row} .actions button')].map((it) => it.textContent).join()"
    );
    assert_eq!(stage.says(&offered), "Drain,Maintenance");
    let button = |mode: &str| format!("{row} button[data-mode={mode}]");
    stage.browser.click(&button("maintenance")).unwrap();
    let asked = "document.querySelector('dialog[open]').textContent";
    stage.awaits(&format!("{asked}.includes('Maintenance dock-1/web-2?')"));
    assert_eq!(
        stage.says(&format!(
            "{asked}.includes('are cut at once, through the front as well')"
        )),
        true
    );
    stage.browser.click("dialog button[type=submit]").unwrap();
    let whose = ("www_hello".to_owned(), Some("dock-1/web-2".to_owned()));
    let order = obeys(&mut stage, "web-2");
    assert_eq!(order, (whose.0.clone(), whose.1.clone(), Mode::Maintenance));
    stage.awaits(&format!(
        "document.querySelector('{row} .mark')?.textContent === 'maintenance'"
    ));
    stage.awaits(&format!("{offered} === 'Ready,Drain'"));
    // The time that its flows have comes from who cuts them, and goes when that is done.
    let service = ServiceName::whole("www_hello");
    let key = InstanceKey::new("dock-1", "web-2");
    let at = SystemTime::now() + Duration::from_secs(90);
    let cuts = [(Whose::Instance(service, key), at)].into();
    let status = Status { cuts, sight: None };
    stage.agent().removal.send_replace(status);
    let state = format!("document.querySelector('{row} [data-label=state]').textContent");
    stage.awaits(&format!("{state}.includes('open flows are cut in 1 min')"));
    let picture = stage.browser.screenshot().unwrap();
    keep(&picture, "maintenance.png");
    stage.agent().removal.send_replace(Status::default());
    stage.awaits(&format!("!{state}.includes('open flows')"));
    stage.browser.click(&button("ready")).unwrap();
    stage.browser.click("dialog button[type=submit]").unwrap();
    let order = obeys(&mut stage, "web-2");
    assert_eq!(order, (whose.0, whose.1, Mode::Ready));
    stage.awaits(&format!(
        "document.querySelector('{row}').dataset.state === 'usable'"
    ));
    stage.end();
}

#[test]
fn a_wrong_token_shows_no_button_and_changes_nothing() {
    let mut stage = Stage::new(host(), counting());
    stage.go("/");
    stage.awaits_script();
    sign_in(&mut stage, "0000000000000000");
    stage.awaits(
        "document.querySelector('dialog [role=status]').textContent === 'The token is wrong.'",
    );
    assert_eq!(stage.says(BUTTONS), 0);
    stage.browser.press(ESCAPE).unwrap();
    stage.awaits("document.querySelector('dialog') === null");
    // A script of this page that tries all the same is refused, and the browser asks nobody for a password.
    let script = "const done = arguments[arguments.length - 1];
        const headers = {'Content-Type': 'application/json', 'X-LB-Action': '1'};
        fetch('/api/v1/instances/state', {method: 'POST', credentials: 'omit', headers, body: '{\"service\":\"www_hello\",\"mode\":\"drain\"}'})
            .then((it) => done(it.status), (error) => done(String(error)));";
    assert_eq!(stage.browser.run_async(script).unwrap(), 401);
    assert!(stage.agent().orders.try_recv().is_err());
    stage.end();
}

#[test]
fn who_signed_in_in_another_tab_can_sign_out_in_this_one() {
    const OFFERED: &str =
        "[...document.querySelectorAll('#sign button')].map((it) => it.textContent).join()";
    const WHO: &str = "const done = arguments[arguments.length - 1];
        fetch('/api/v1/session').then((it) => it.json()).then((it) => done(it.who), (error) => done(String(error)));";
    let mut stage = Stage::new(host(), counting());
    stage.go("/");
    stage.awaits_script();
    let token = stage.agent().token.clone();
    sign_in(&mut stage, &token);
    stage.awaits(&format!("{BUTTONS} > 0"));
    assert_eq!(stage.says(OFFERED), "Sign out");
    // Another tab has the cookie, and not the key.
    stage.browser.run("sessionStorage.clear()").unwrap();
    stage.go("/");
    stage.awaits_script();
    stage.awaits(&format!("{OFFERED} === 'Sign out,Sign in'"));
    assert_eq!(stage.says(BUTTONS), 0);
    // Who signs in there has another session, and the one before is over.
    stage.browser.click("#sign button:last-child").unwrap();
    stage.browser.press(&format!("{token}{ENTER}")).unwrap();
    stage.awaits(&format!("{BUTTONS} > 0"));
    assert_eq!(stage.browser.run_async(WHO).unwrap(), "session 2");
    stage.browser.run("sessionStorage.clear()").unwrap();
    stage.go("/");
    stage.awaits_script();
    stage.awaits(&format!("{OFFERED} === 'Sign out,Sign in'"));
    stage.browser.click("#sign button").unwrap();
    stage.awaits(&format!("{OFFERED} === 'Sign in'"));
    assert_eq!(
        stage.browser.run_async(WHO).unwrap(),
        serde_json::Value::Null
    );
    stage.console_has_only(&[]);
    stage.end();
}

#[test]
fn a_drain_takes_no_mouse() {
    let mut stage = Stage::new(host(), counting());
    stage.go("/");
    stage.awaits_script();
    // The first thing is the way past the head.
    stage.browser.press(TAB).unwrap();
    assert_eq!(
        stage.says("document.activeElement.textContent"),
        "Skip to the report"
    );
    stage.browser.press(TAB).unwrap();
    assert_eq!(stage.says("document.activeElement.textContent"), "Sign in");
    let ring = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(stage.says(ring), "solid");
    stage.browser.press(ENTER).unwrap();
    stage.awaits("document.activeElement.id === 'token'");
    let token = stage.agent().token.clone();
    stage.browser.press(&format!("{token}{ENTER}")).unwrap();
    stage.awaits(&format!("{BUTTONS} > 0"));
    stage.awaits("document.querySelector('dialog') === null");
    // The slash leads to the search, which leaves one service.
    stage.browser.run("document.activeElement.blur()").unwrap();
    stage.browser.press("/").unwrap();
    stage.awaits("document.activeElement.id === 'q'");
    stage.browser.press("hello").unwrap();
    stage.awaits("document.querySelectorAll('section.service').length === 1");
    let here = "document.activeElement.dataset.mode === 'drain'";
    let mut presses = 0;
    while stage.says(here) != true {
        stage.browser.press(TAB).unwrap();
        presses += 1;
        assert!(presses < 60, "no button is reached");
    }
    let row = "document.activeElement.closest('tr').dataset.backend";
    assert_eq!(stage.says(row), "dock-1/web-1");
    stage.browser.press(ENTER).unwrap();
    stage.awaits("document.activeElement.textContent === 'Cancel'");
    stage.browser.press(TAB).unwrap();
    stage.browser.press(ENTER).unwrap();
    let (service, backend, mode) = obeys(&mut stage, "web-1");
    assert_eq!((service.as_str(), mode), ("www_hello", Mode::Drain));
    assert_eq!(backend.as_deref(), Some("dock-1/web-1"));
    stage.awaits(
        "document.querySelector('tr[data-backend=\"dock-1/web-1\"]').dataset.state === 'draining'",
    );
    stage.end();
}
