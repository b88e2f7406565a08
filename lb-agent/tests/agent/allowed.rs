//! Who may use the admin socket, as the kernel tells who asks.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::kit::World;

/// Users without a name here.
const OPERATOR: u32 = 31_234;
const STRANGER: u32 = 31_235;

#[test]
fn a_user_of_the_list_may_order_by_the_socket_and_nobody_else() {
    let (mut world, _instances, _) = World::with_two();
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(world.path(""), open).unwrap();
    let drain = ["drain", "www_hello/a"];
    // Nobody is on a list yet: not even the socket lets them in.
    let refused = world.ask_as(OPERATOR, &drain);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.err.contains("[admin] allow_uids"), "{refused:?}");

    world.terminate();
    let usual = world.usual();
    world.configure(&format!("{usual}[admin]\nallow_uids = [{OPERATOR}]\n"));
    world.start(&[]);
    world.await_ready();
    world.await_usable("www_hello", &["a", "b"]);
    let done = world.ask_as(OPERATOR, &drain);
    assert_eq!(done.code, Some(0), "{done:?}");
    world.await_usable("www_hello", &["b"]);
    for command in [&["status"][..], &["drain", "www_hello/b"]] {
        let refused = world.ask_as(STRANGER, command);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        assert!(refused.err.contains("[admin] allow_uids"), "{refused:?}");
    }
    world.await_usable("www_hello", &["b"]);
    let events = world.ask(&["events", "-o", "json"]).json();
    let events = events.as_array().unwrap();
    let change = events.iter().find(|it| it["kind"] == "change").unwrap();
    assert_eq!(change["actor"], format!("uid {OPERATOR}"));
    world.finish();
}
