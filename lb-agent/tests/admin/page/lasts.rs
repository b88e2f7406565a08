//! The page while time goes by.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use lb_agent::{
    catalog::InstanceKey,
    snapshot::{Service, ServiceName},
};

use super::{
    Stage, agent,
    values::{counting, front, host},
};
use crate::{
    agent::no_sockets,
    values::{figures, key},
};

/// How often the script has asked for the whole page.
const FETCHES: &str = "performance.getEntriesByType('resource').filter((it) => new URL(it.name).pathname === '/').length";

#[test]
fn counts_and_instances_appear_by_themselves() {
    let active = Arc::new(AtomicU64::new(3));
    let counted = Arc::clone(&active);
    let mut stage = Stage::new(crate::values::snapshot(), move || {
        let mut stats = figures();
        for service in stats.services.values_mut() {
            service.active = counted.load(Ordering::Relaxed);
        }
        stats
    });
    stage.go("/");
    stage.awaits_script();
    let cell = |key: &str| {
        format!("document.querySelector('section [data-k=\"www_hello|{key}\"]').textContent")
    };
    assert_eq!(stage.says(&cell("active")), "3");
    active.store(4711, Ordering::Relaxed);
    stage.awaits(&format!("{} === '4\\u202f711'", cell("active")));
    // That came by the stream: nobody has asked for the page again.
    assert_eq!(stage.says(FETCHES), 0);

    // The service is scaled: the row is there, and what the reader opened and typed stays.
    stage.browser.click("#q").unwrap();
    scale(&mut stage);
    stage.awaits("document.querySelector('tr[data-backend=\"file/b\"]') !== null");
    assert_eq!(stage.says("document.activeElement.id"), "q");
    assert_eq!(stage.says(FETCHES), 1);
    stage.console_has_only(&[]);
    stage.end();
}

#[test]
fn rows_that_changed_between_the_page_and_its_stream_appear() {
    let mut stage = Stage::new(crate::values::snapshot(), figures);
    stage.go("/");
    stage.awaits_script();
    // As if the stream began only after the change: nobody has told the page of it.
    stage.browser.run("stream.close()").unwrap();
    scale(&mut stage);
    let row = "document.querySelector('tr[data-backend=\"file/b\"]') !== null";
    assert_eq!(stage.says(row), false);
    stage.browser.run("listen()").unwrap();
    stage.awaits(row);
    assert_eq!(stage.says(FETCHES), 1);
    stage.end();
}

#[test]
fn an_agent_that_ended_is_told_and_one_that_is_back_is_shown() {
    let mut stage = Stage::new(host(), counting());
    stage.agent().front.send_replace(Some(front(12_000)));
    stage.go("/");
    stage.awaits_script();
    let gone = stage.agent.take().unwrap();
    let address = gone.host();
    stage.runtime.block_on(gone.end());
    stage.awaits(
        "document.getElementById('live').textContent.startsWith('The agent does not answer')",
    );
    // What was known is still there to read.
    stage.awaits("document.body.innerText.includes('shop_api answers')");
    let mut next = host();
    next.problems.clear();
    let back = agent(
        &stage.runtime,
        stage.netns,
        &address,
        (no_sockets(), next),
        counting(),
    );
    stage.agent = Some(back);
    stage.awaits("document.getElementById('live').textContent === 'live'");
    stage.awaits("!document.body.innerText.includes('shop_api answers')");
    stage.end();
}

/// The service of the usual snapshot gets an instance more.
fn scale(stage: &mut Stage) {
    let mut next = crate::values::snapshot();
    let name = ServiceName::whole("www_hello");
    let mut service = Service::clone(&next.services[&name]);
    let one = service.backends[&key("a")].clone();
    service.backends.insert(InstanceKey::new("file", "b"), one);
    next.services.insert(name, service.into());
    next.number = 2;
    stage.agent().snapshots.send_replace(Some(Arc::new(next)));
}
