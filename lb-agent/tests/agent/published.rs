//! The page through the agent's own front, which connects from loopback like anybody on the host.

use std::fs;

use crate::kit::World;

/// A world whose front has the page under `page.infra`, and under `localhost` by an alias.
fn published(rule: &str) -> World {
    let mut world = World::new();
    world.configure(&format!(
        "{}[admin]\nnames = [\"page.infra\"]\n{rule}",
        world.usual()
    ));
    world.publish(
        "[[service]]\nname = \"page_infra\"\ntags = [\"server_aliases=localhost\"]\n\
         [[service.instance]]\nid = \"page\"\naddress = \"127.0.0.1\"\nport = 9180\n",
    );
    world.start(&[]);
    world.await_ready();
    world.await_usable("page_infra", &["page"]);
    world
}

#[test]
fn who_reads_the_page_through_the_front_shows_the_token_and_changes_nothing() {
    let world = published("");
    for host in ["page.infra", "localhost"] {
        // Before the front knows the instance it answers 503.
        world.await_front(host, |answer| answer.status == 401);
        let token = fs::read_to_string(world.path("state/admin.token")).unwrap();
        let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
        let page = world.front_with("GET / HTTP/1.1", host, &bearer, "");
        assert_eq!(page.status, 200, "{}", page.body);
        assert!(page.body.contains("page_infra"), "{}", page.body);
        let headers = format!("{bearer}X-LB-Action: 1\r\nContent-Type: application/json\r\n");
        let line = "POST /api/v1/instances/state HTTP/1.1";
        let order = r#"{"service":"page_infra","mode":"drain"}"#;
        let answer = world.front_with(line, host, &headers, order);
        assert_eq!(answer.status, 403, "{}", answer.body);
        assert!(answer.body.contains("run `lb-agent` on the host"));
        let health = world.front_with("GET /healthz HTTP/1.1", host, "", "");
        assert_eq!(health.status, 200);
    }
    // On the host itself the page is as open as ever, and the token changes things.
    assert_eq!(world.page("/").unwrap().status, 200);
    let drained = world.post(
        "/api/v1/instances/state",
        r#"{"service":"page_infra","mode":"drain"}"#,
    );
    assert_eq!(drained.unwrap().status, 200);
    world.finish();
}

#[test]
fn a_page_that_is_published_open_is_read_by_whom_the_front_lets_in_and_changed_by_nobody() {
    let world = published("published = \"open\"\n");
    world.await_front("page.infra", |answer| answer.status == 200);
    let token = fs::read_to_string(world.path("state/admin.token")).unwrap();
    let headers = format!(
        "Authorization: Bearer {}\r\nX-LB-Action: 1\r\nContent-Type: application/json\r\n",
        token.trim()
    );
    let line = "POST /api/v1/instances/state HTTP/1.1";
    let answer = world.front_with(
        line,
        "page.infra",
        &headers,
        r#"{"service":"page_infra","mode":"drain"}"#,
    );
    assert_eq!(answer.status, 403, "{}", answer.body);
    world.finish();
}
