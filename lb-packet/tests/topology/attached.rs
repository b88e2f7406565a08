//! Programs at devices: below kernel 6.6, taken away by somebody, and those that are in place.

use lb_packet::{How, Role, XdpMode};

use crate::{
    agent::Agent,
    load::load,
    net::{V4, V6},
    scene::{Scene, both, to},
};

#[test]
fn below_kernel_6_6_the_qdisc_does_the_same() {
    let scene = Scene::new();
    for adopted in [false, true] {
        let mut agent = Agent::start(&scene.host, &scene.pins, None, &[]);
        agent.programs.use_clsact();
        scene
            .host
            .enter(|| agent.programs.attach("vm0", Role::Client).map(drop))
            .unwrap()
            .unwrap();
        let hooks = &agent.programs.attached()[0].hooks;
        assert!(
            hooks
                .iter()
                .all(|hook| hook.how == How::Clsact && hook.adopted == adopted),
            "{hooks:?}"
        );
        agent.serve(10, &both(), false);
        for family in [V4, V6] {
            let _servers = scene.servers(family);
            load(&scene.client, to(family), 2, 10, 100_000);
        }
    }
    // Who comes to a newer kernel takes them away, and they are not run twice.
    let agent = scene.agent();
    assert!(agent.ways().values().all(|how| *how == How::Tcx));
    let filters = scene.host.enter(|| {
        std::process::Command::new("tc")
            .args(["filter", "show", "dev", "vm0", "ingress"])
            .output()
            .unwrap()
    });
    assert_eq!(String::from_utf8_lossy(&filters.unwrap().stdout), "");
    let _servers = scene.servers(V4);
    load(&scene.client, to(V4), 2, 10, 1000);
}

#[test]
fn a_qdisc_that_somebody_takes_away_is_missed_and_comes_again() {
    let scene = Scene::new();
    let mut agent = Agent::start(&scene.host, &scene.pins, None, &[]);
    agent.programs.use_clsact();
    agent.serve(10, &both(), false);
    let attach = |agent: &mut Agent| agent.programs.attach("vm0", Role::Client).map(drop);
    let in_place = |agent: &Agent| {
        let hooks = agent.programs.attached()[0].hooks.iter();
        hooks.map(lb_packet::Hook::in_place).collect::<Vec<_>>()
    };
    let on_host = || {
        attach(&mut agent).unwrap();
        assert_eq!(in_place(&agent), [Some(true); 2]);
        let gone = std::process::Command::new("tc")
            .args(["qdisc", "del", "dev", "vm0", "clsact"])
            .status();
        assert!(gone.unwrap().success());
        assert_eq!(in_place(&agent), [Some(false); 2]);
        attach(&mut agent).unwrap();
        assert_eq!(in_place(&agent), [Some(true); 2]);
    };
    scene.host.enter(on_host).unwrap();
    let _servers = scene.servers(V4);
    load(&scene.client, to(V4), 2, 10, 1000);
}

#[test]
fn what_is_in_place_is_left_alone_when_the_rest_is_tried_again() {
    let scene = Scene::new();
    scene.host.ip("link add br9 type bridge\n").unwrap();
    let mut agent = Agent::start(&scene.host, &scene.pins, None, &[]);
    let mut attach = |mode| {
        let role = Role::Card { mode };
        let attached = scene.host.enter(|| {
            let attached = agent.programs.attach("br9", role)?;
            let hooks = attached.hooks.iter();
            let hooks: Vec<_> = hooks.map(|it| (it.program, it.how, it.adopted)).collect();
            Ok::<_, lb_packet::Error>((hooks, attached.fallback.is_some()))
        });
        attached.unwrap()
    };
    for _ in 0..2 {
        attach(XdpMode::Native).expect_err("such a device has no driver that runs XDP");
    }
    // Taken over from itself they would be adopted ones.
    let tc = How::Tcx;
    let hooks = vec![
        ("tc_card_out", tc, false),
        ("tc_card_in", tc, false),
        ("xdp_card", How::Generic, false),
    ];
    for _ in 0..2 {
        assert_eq!(attach(XdpMode::Auto).unwrap(), (hooks.clone(), true));
    }
}

#[test]
fn who_adopts_xdp_of_the_stack_says_how_the_driver_is_tried() {
    let scene = Scene::new();
    scene.host.ip("link add br9 type bridge\n").unwrap();
    let attach = |mode| {
        let mut agent = Agent::start(&scene.host, &scene.pins, None, &[]);
        let attached = scene.host.enter(|| {
            let attached = agent.programs.attach("br9", Role::Card { mode })?;
            let xdp = attached.hooks.iter().find(|it| it.program == "xdp_card");
            let xdp = xdp.map(|it| (it.how, it.adopted));
            Ok::<_, lb_packet::Error>((xdp.unwrap(), attached.fallback.clone()))
        });
        attached.unwrap().unwrap()
    };
    let (found, why) = attach(XdpMode::Auto);
    assert_eq!(found, (How::Generic, false));
    assert!(why.unwrap().starts_with("its driver does not run XDP: "));
    let (found, why) = attach(XdpMode::Auto);
    assert_eq!(found, (How::Generic, true));
    assert!(why.unwrap().contains("xdp = \"native\""));
    // Nothing else was to be tried.
    let (found, why) = attach(XdpMode::Generic);
    assert_eq!((found, why), ((How::Generic, true), None));
}
