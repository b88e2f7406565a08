//! The programs of devices, by the loader that the agent has: what the kernel says of each, and TCP through them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use lb_common::{
    Be16, Be32, PROTO_TCP,
    packet::{EndpointKey, scope, step},
};
use lb_packet::{
    Config, Desired, How, Limits, Member, PROGRAMS, Programs, Publisher, Role, Wanted, XdpMode,
};
use lb_testkit::guest::Figures;

use crate::{
    figures,
    lan::{self, Lan, TO_BACKEND, TO_CLIENT},
    system::Pins,
    table::{OWN, POOL, POOL6, Vip},
    tried::Tried,
};

/// Where its pins are.
const BPFFS: &str = "/run/lb-guest-packet";

const LOAD: &str = "packet path: load";

const VIP: Vip = Vip::new(7, 7);

/// The object of the packet path. It is loaded once: that takes long.
pub(crate) fn examine(tried: &mut Tried) -> Vec<Figures> {
    let _pins = match Pins::mount(BPFFS) {
        Ok(pins) => pins,
        Err(error) => {
            tried.note(LOAD, Err(error));
            return Vec::new();
        }
    };
    let (mut programs, mut figures) = match load() {
        Ok(loaded) => loaded,
        Err(error) => {
            tried.refused(LOAD, format!("{error:#}"));
            return Vec::new();
        }
    };
    tried.note(LOAD, Ok(String::new()));
    let card = |mode| {
        let card = Role::Card { mode };
        [(TO_CLIENT, card), (TO_BACKEND, card)]
    };
    let ways = [
        ("a client's device", &[(TO_CLIENT, Role::Client)][..]),
        ("cards with generic XDP", &card(XdpMode::Generic)),
    ];
    for (name, devices) in ways {
        let went = flows(&mut programs, devices, &mut figures);
        tried.note(&format!("packet path: {name}"), went);
    }
    figures
}

/// TCP through the VIP, in both families, with the programs attached to these devices; adds by what each is. Answers what
/// is different from what an operator may expect.
fn flows(
    programs: &mut Programs,
    devices: &[(&str, Role)],
    figures: &mut [Figures],
) -> Result<String> {
    let lan = Lan::new()?;
    lan.host.enter(|| {
        devices.iter().try_for_each(|(device, role)| {
            let attached = programs.attach(device, *role).map(drop);
            attached.with_context(|| format!("cannot attach to {device}"))
        })
    })??;
    let hooks = programs.attached().iter().flat_map(|it| &it.hooks);
    let hooks: Vec<_> = hooks.map(|it| (it.program, it.how)).collect();
    tell(&hooks, figures);
    for vip in [IpAddr::from(VIP.four), VIP.six.into()] {
        let seen = lan.talk(SocketAddr::new(vip, 80))?;
        let expected = match devices {
            [(_, Role::Client), ..] => Lan::client(vip),
            _ => lan::source(vip),
        };
        ensure!(
            seen == expected,
            "the backend sees {seen} instead of {expected}"
        );
    }
    lan.host.enter(|| {
        devices
            .iter()
            .try_for_each(|(device, _)| programs.detach(device))
    })??;
    if hooks.iter().any(|(_, how)| *how == How::Clsact) {
        return Ok(
            "the programs of tc hang from the qdisc clsact: this kernel has no tcx".to_owned(),
        );
    }
    Ok(String::new())
}

/// Adds by what each program is attached.
fn tell(hooks: &[(&str, How)], figures: &mut [Figures]) {
    for (program, how) in hooks {
        let Some(figures) = figures.iter_mut().find(|it| it.program == *program) else {
            continue;
        };
        let ways = figures.attached.get_or_insert_default();
        if !ways.split(", ").any(|it| it == how.as_str()) {
            let comma = if ways.is_empty() { "" } else { ", " };
            *ways = format!("{ways}{comma}{}", how.as_str());
        }
    }
}

/// The programs, with one service.
fn load() -> Result<(Programs, Vec<Figures>)> {
    let sources = [VIP.four.into(), VIP.six.into()].map(lan::source);
    let [IpAddr::V4(source4), IpAddr::V6(source6)] = sources else {
        bail!("the host has one address of each family");
    };
    let mut programs = Programs::load(&Config {
        bpffs: BPFFS.into(),
        pool: POOL,
        pool6: Some(POOL6),
        own: OWN,
        source4: Some(source4),
        source6: Some(source6),
        ports: 20_000..=29_999,
        limits: Limits {
            services: 8,
            backends: 16,
            flows: 1024,
        },
    })?;
    let names = [&PROGRAMS[..], &step::PROGRAMS].concat();
    let mut figures = figures::of(programs.ebpf(), "packet", &names)?;
    for step in &mut figures {
        // The others are attached later.
        if step::PROGRAMS.contains(&&*step.program) {
            step.attached = Some("tail call".to_owned());
        }
    }
    let report = Publisher::open(&mut programs)?.apply(&desired())?;
    ensure!(
        report.refused.is_empty(),
        "not published: {:?}",
        report.refused
    );
    Ok((programs, figures))
}

/// One service, whose backend is another host.
fn desired() -> Desired {
    let addresses = [IpAddr::from(VIP.four), VIP.six.into()].map(lan::backend);
    let members = addresses.map(|address| Member { address, weight: 1 });
    let mut desired = Desired::default();
    for scope in [0, scope::V6] {
        let key = EndpointKey {
            vip: Be32::from_host(Ipv4Addr::into(VIP.four)),
            port: Be16::from_host(80),
            proto: PROTO_TCP,
            scope,
        };
        let wanted = Wanted {
            members: members.into(),
            tunnel: false,
            trace: false,
        };
        desired.endpoints.insert(key, wanted);
    }
    desired.vips.insert(VIP.four);
    desired
}
