//! The records of VIPs in Consul: hosts agree by them, and operators' orders hold on all.

use std::{net::Ipv4Addr, time::Duration};

use lb_agent::{
    discover::consul::Token,
    vip::{How, Order},
};
use serde_json::json;
use tokio::time::{Instant, timeout};

use crate::{
    fake::Fake,
    kit::{LETTERS, Vip, config},
    support::{BOUND, Consul},
};

#[tokio::test]
async fn two_hosts_that_see_names_at_once_agree_on_every_vip() {
    let consul = Consul::start().await;
    let (mut one, mut two) = (Vip::start(&consul.address()), Vip::start(&consul.address()));
    // Opposite orders of arrival, at the same time.
    for n in 1..=LETTERS.len() {
        one.want(LETTERS.into_iter().take(n));
        two.want(LETTERS.into_iter().rev().take(n));
        tokio::task::yield_now().await;
    }
    let deadline = Instant::now() + BOUND;
    loop {
        let (a, b) = (one.all(10).await, two.all(10).await);
        if a == b {
            break;
        }
        assert!(Instant::now() < deadline, "{a:#?} {b:#?}");
        tokio::select! {
            changed = one.vips.changed() => changed.unwrap(),
            changed = two.vips.changed() => changed.unwrap(),
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
    // A third host that comes later reads what the others recorded.
    let mut three = Vip::start(&consul.address());
    three.want(LETTERS);
    three.agrees(&one.all(10).await).await;
    assert_eq!(one.vips.borrow().as_ref().unwrap().problems, []);
    one.end().await;
    two.end().await;
    three.end().await;
}

#[tokio::test]
async fn without_consul_colliding_names_are_served_and_the_risk_is_told_until_it_comes_back() {
    let mut consul = Consul::start().await;
    consul.kill();
    let mut vip = Vip::start(&consul.address());
    vip.want(LETTERS);
    let served = vip.all(10).await;
    let text = vip.problem().await;
    assert!(
        text.contains("other hosts may choose differently"),
        "{text}"
    );
    assert!(text.contains("cannot reach Consul"), "{text}");
    consul.run().await;
    assert_eq!(vip.settled().await.by_name, served);
    vip.end().await;
}

#[tokio::test]
async fn a_token_that_may_not_read_the_records_is_told_and_colliding_names_are_served() {
    let fake = Fake::start().await;
    let mut vip = Vip::start(&fake.address());
    vip.want(LETTERS);
    vip.all(10).await;
    let text = vip.problem().await;
    assert!(text.contains("403"), "{text}");
    assert!(text.contains("key_prefix \"lb-agent/\" write"), "{text}");
    vip.end().await;
}

#[tokio::test]
async fn a_pin_holds_on_every_host_until_any_of_them_releases_it() {
    let consul = Consul::start().await;
    let (mut one, mut two) = (Vip::start(&consul.address()), Vip::start(&consul.address()));
    one.want(["a"]);
    two.want(["a"]);
    let home = one.until("a", |_| true).await;
    assert_eq!(two.until("a", |_| true).await, home);
    let first = free_beside(&[home]);
    let pinned = one.pin("a", first).await.unwrap();
    assert_eq!((pinned[0].how, pinned[0].in_use), (How::Pin, true));
    two.until("a", |vip| vip == first).await;
    one.until("a", |vip| vip == first).await;

    // The other host may pin it anew: the former pin is gone everywhere.
    let second = free_beside(&[home, first]);
    two.pin("a", second).await.unwrap();
    one.until("a", |vip| vip == second).await;
    let refused = one.pin("b", second).await.unwrap_err();
    assert!(refused.contains("recorded for service a"), "{refused}");

    // Either host may release it; the service goes where its hash leads, on both.
    one.release("a").await.unwrap();
    two.until("a", |vip| vip == home).await;
    one.until("a", |vip| vip == home).await;
    // Whichever host was told first, and by whom: nobody else gets what clients may remember.
    for host in [&one, &two] {
        let listed = host.order(Order::List).await.unwrap();
        assert!(listed.iter().all(|it| it.how != How::Pin), "{listed:?}");
        let resting = listed.iter().filter(|it| it.how == How::Quarantine);
        let resting: Vec<_> = resting.map(|it| it.address).collect();
        assert_eq!(resting, [first.min(second), first.max(second)]);
    }
    one.end().await;
    two.end().await;
}

#[tokio::test]
async fn a_release_leaves_no_lower_index_once_consul_has_forgotten_it() {
    let consul = Consul::start().await;
    let mut vip = Vip::start(&consul.address());
    vip.want(["a", "b"]);
    let before = vip.all(2).await;
    let mut pool = (2..15).map(|last| Ipv4Addr::new(10, 0, 0, last));
    let mut free = || {
        pool.find(|it| before.values().all(|vip| vip != it))
            .unwrap()
    };
    // What is left is not forgotten: the highest index of a key.
    let newest = async || {
        let keys = consul.get("kv/lb-agent/vip?recurse").await;
        let keys = keys.as_array().unwrap().iter();
        keys.map(|it| it["ModifyIndex"].as_u64().unwrap())
            .max()
            .unwrap()
    };
    // Twice, since a value that stays the same is no write.
    for service in ["a", "b"] {
        vip.pin(service, free()).await.unwrap();
        let with_it = newest().await;
        vip.release(service).await.unwrap();
        assert!(newest().await > with_it);
    }
    vip.end().await;
}

#[tokio::test]
async fn two_hosts_that_pin_one_address_at_once_do_not_both_have_their_way() {
    let consul = Consul::start().await;
    let (mut one, mut two) = (Vip::start(&consul.address()), Vip::start(&consul.address()));
    one.want(["a", "b"]);
    two.want(["a", "b"]);
    let before = one.all(2).await;
    assert_eq!(two.all(2).await, before);
    let free = free_beside(&before.into_values().collect::<Vec<_>>());
    let (a, b) = tokio::join!(one.pin("a", free), two.pin("b", free));
    assert_ne!(a.is_ok(), b.is_ok(), "{a:?} {b:?}");
    let winner = if a.is_ok() { "a" } else { "b" };
    for vip in [&mut one, &mut two] {
        vip.until(winner, |vip| vip == free).await;
    }
    one.end().await;
    two.end().await;
}

/// A token with these rules.
async fn token(consul: &Consul, rules: &str) -> Token {
    let secret = "b1c7d2a4-0000-4000-8000-9d1c5f0a7e33";
    let policy = json!({"Name": "lb-test", "Rules": rules});
    consul.put("acl/policy", policy).await;
    let token = json!({"SecretID": secret, "Policies": [{"Name": "lb-test"}]});
    consul.put("acl/token", token).await;
    Token::Value(secret.to_owned())
}

#[tokio::test]
async fn a_token_without_rights_to_the_store_is_told_only_when_it_matters() {
    for rules in [
        // None at all, and to read only.
        "service_prefix \"\" { policy = \"read\" }",
        "key_prefix \"lb-agent/\" { policy = \"read\" }",
    ] {
        let consul = Consul::start_guarded().await;
        let mut with = config(&consul.address());
        with.token = Some(token(&consul, rules).await);
        let mut vip = Vip::start_as(with);
        // Nothing collides: the hash is all that hosts need to agree.
        vip.want(["a"]);
        let home = vip.until("a", |_| true).await;
        let refused = vip.pin("a", free_beside(&[home])).await.unwrap_err();
        assert!(
            refused.contains("key_prefix \"lb-agent/\" write"),
            "{refused}"
        );
        assert_eq!(vip.vips.borrow().as_ref().unwrap().problems, []);
        assert_eq!(vip.until("a", |_| true).await, home);

        vip.want(LETTERS);
        vip.all(LETTERS.len()).await;
        let text = vip.problem().await;
        assert!(text.contains("key_prefix \"lb-agent/\" write"), "{text}");
        vip.end().await;
    }
}

#[tokio::test]
async fn a_release_that_the_token_may_not_write_is_refused_with_the_right() {
    let consul = Consul::start_guarded().await;
    let key = "kv/lb-agent/vip/10.0.0.14";
    let record = json!({"version": 1, "service": "other", "pinned": true});
    consul.put(key, record).await;
    let mut with = config(&consul.address());
    with.token = Some(token(&consul, "key_prefix \"lb-agent/\" { policy = \"read\" }").await);
    let vip = Vip::start_as(with);
    let known = async {
        while vip.order(Order::List).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(BOUND, known).await.unwrap();
    let refused = vip.release("other").await.unwrap_err();
    assert!(
        refused.contains("key_prefix \"lb-agent/\" write"),
        "{refused}"
    );
    assert_eq!(consul.get(key).await.as_array().unwrap().len(), 1);
    vip.end().await;
}

/// An address of the pool that is none of these.
fn free_beside(taken: &[Ipv4Addr]) -> Ipv4Addr {
    let mut pool = (2..15).map(|last| Ipv4Addr::new(10, 0, 0, last));
    pool.find(|it| !taken.contains(it)).unwrap()
}
