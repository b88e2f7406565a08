//! `lb-agent uninstall`: what the agent leaves on a host goes, and nothing else.

use std::{fs, io};

use lb_testkit::eventually;

use crate::kit::{LIMIT, World, greeting};

#[test]
fn it_takes_everything_away_and_may_be_done_again() {
    let (mut world, _a, vip) = World::with_one();
    let flow = world.connect(vip, 80).unwrap();
    let etc = world.path("root/etc");
    fs::create_dir_all(&etc).unwrap();
    let resolv_conf = etc.join("resolv.conf");
    fs::write(&resolv_conf, "nameserver 192.0.2.1\n").unwrap();
    let root = world.path("root").display().to_string();
    let installed = world.ask(&["resolver", "install", "--root", &root]);
    assert_eq!(installed.code, Some(0), "{installed:?}");
    world.terminate();

    let before = world.network();
    let dry = world.uninstall(&["--dry-run", "--purge"]);
    assert_eq!(dry.code, Some(0), "{dry:?}");
    assert_eq!(world.network(), before);
    assert_eq!(greeting(&world.connect(vip, 80).unwrap()).unwrap(), "a");

    let done = world.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    for line in [
        "detached connect4",
        "detached sock_release",
        "removed the address 198.18.0.1 on lo",
        "removed the unreachable route of 198.18.0.0/16",
    ] {
        assert!(done.out.contains(line), "{line} is not in {done:?}");
        let told = line
            .replace("detached", "would detach")
            .replace("removed", "would remove");
        assert!(dry.out.contains(&told), "{told} is not in {dry:?}");
    }
    world.assert_untouched();
    assert_eq!(
        fs::read_to_string(&resolv_conf).unwrap(),
        "nameserver 192.0.2.1\n"
    );
    // It was told, and it is still there.
    let state = world.path("state");
    assert!(done.out.contains(&state.display().to_string()), "{done:?}");
    assert!(state.join("admin.token").exists());
    // Nobody is in the way, and nobody answers.
    let error = world.connect(vip, 80).unwrap_err();
    assert_ne!(error.kind(), io::ErrorKind::ConnectionRefused, "{error}");
    // Who is connected goes straight to the backend.
    assert_eq!(greeting(&flow).unwrap(), "a");

    let again = world.uninstall(&["--purge"]);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(!state.exists(), "{again:?}");
    let nothing = world.uninstall(&["--purge"]);
    assert_eq!(nothing.out, "nothing to take away\n", "{nothing:?}");

    // The next agent begins anew.
    world.start(&[]);
    world.await_ready();
    assert_eq!(world.await_usable("www_hello", &["a"]), vip);
    world.assert_serves(vip, "a");
    world.finish();
}

#[test]
fn it_is_refused_while_an_agent_runs() {
    let (mut world, _a, vip) = World::with_one();
    let refused = world.uninstall(&["--purge"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let id = world.agent_id().to_string();
    assert!(refused.err.contains(&id), "{refused:?}");
    assert!(refused.err.contains("stop it"), "{refused:?}");
    let dry = world.uninstall(&["--dry-run"]);
    assert!(dry.out.contains("an agent is running"), "{dry:?}");
    world.assert_serves(vip, "a");
    world.await_fine();
    // Killed, it leaves a front, which is told.
    world.kill();
    let done = world.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.out.contains("the front of an agent"), "{done:?}");
    for front in world.children() {
        let id = nix::unistd::Pid::from_raw(i32::try_from(front).unwrap());
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    let gone = eventually(LIMIT, || match world.children() {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}")),
    });
    gone.unwrap();
    let rest = world.uninstall(&[]);
    assert!(rest.out.contains("front.sock"), "{rest:?}");
    world.assert_untouched();
    world.finish();
}

#[test]
fn what_others_pinned_there_is_kept_and_told() {
    let (mut world, _a, _) = World::with_one();
    world.terminate();
    let foreign = world.path("bpf/lb/links/theirs");
    // Any pin will do.
    let renamed = world
        .netns
        .enter(|| fs::rename(world.path("bpf/lb/links/bind4"), &foreign));
    renamed.unwrap().unwrap();
    let done = world.uninstall(&[]);
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(
        done.out.contains(&foreign.display().to_string()),
        "{done:?}"
    );
    assert!(world.netns.enter(|| foreign.exists()).unwrap());
    world.finish();
}

#[test]
fn a_state_directory_that_is_a_volume_is_emptied_and_told() {
    let (mut world, _a, _) = World::with_one();
    world.terminate();
    let state = world.path("state");
    world.netns.bind(&state, &state).unwrap();
    let done = world.uninstall(&["--purge"]);
    assert_eq!(done.code, Some(0), "{done:?}");
    let told = format!("left: {}: empty, and a mount", state.display());
    assert!(done.out.contains(&told), "{done:?}");
    let left = fs::read_dir(&state).unwrap().count();
    assert_eq!(left, 0, "{done:?}");
    world.finish();
}
