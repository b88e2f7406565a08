//! What is published is there, and is taken over.

use std::net::{IpAddr, Ipv4Addr};

use lb_packet::{Config, Desired, Error, Programs, Publisher, Refused, Report};

use crate::kit::*;

#[test]
fn what_was_published_is_taken_over_and_nothing_is_written_again() {
    with_pins(|pins| {
        let mut programs = Programs::load(&config(pins, 100)).unwrap();
        assert!(programs.has_new_maps());
        let mut publisher = Publisher::open(&mut programs).unwrap();
        let report = publisher.apply(&both()).unwrap();
        assert_eq!((report.published, report.placed), (2, 2));
        let before: Vec<_> = publisher.targets().collect();
        let endpoints: Vec<_> = publisher.endpoints().collect();
        drop((programs, publisher));

        let mut programs = Programs::load(&config(pins, 100)).unwrap();
        assert!(!programs.has_new_maps());
        assert_eq!(programs.problems(), [""; 0]);
        let mut publisher = Publisher::open(&mut programs).unwrap();
        assert_eq!(publisher.targets().collect::<Vec<_>>(), before);
        assert_eq!(publisher.endpoints().collect::<Vec<_>>(), endpoints);
        let report = publisher.apply(&both()).unwrap();
        assert_eq!(report, Report::default());
        assert_eq!(publisher.endpoints().collect::<Vec<_>>(), endpoints);
        // Another one comes beside those that stay who they are.
        let more = desired(&[
            BACKEND.into(),
            Ipv4Addr::new(10, 1, 0, 11).into(),
            BACKEND6.parse().unwrap(),
        ]);
        let report = publisher.apply(&more).unwrap();
        assert_eq!((report.published, report.placed, report.freed), (1, 1, 0));
        for target in before {
            assert!(publisher.targets().any(|it| it == target), "{target:?}");
        }
    });
}

#[test]
fn a_full_map_of_hosts_is_told_and_keeps_nothing_else_from_being_told() {
    with_pins(|pins| {
        let mut programs = Programs::load(&config(pins, 100)).unwrap();
        let mut publisher = Publisher::open(&mut programs).unwrap();
        let hosts = (0..5000_u16).map(|host| {
            let [high, low] = host.to_be_bytes();
            IpAddr::from([10, 9, high, low])
        });
        let mut desired = Desired {
            hosts: hosts.collect(),
            ..both()
        };
        for published in [2, 0] {
            let report = publisher.apply(&desired).unwrap();
            assert_eq!(report.published, published);
            let without: Vec<_> = desired.hosts.iter().skip(4096).copied().collect();
            let refused: Vec<_> = without.into_iter().map(Refused::Host).collect();
            assert_eq!(report.refused, refused);
            assert!(report.again.is_some(), "there may be room later");
        }
        desired.hosts.clear();
        assert_eq!(publisher.apply(&desired).unwrap(), Report::default());
        assert_eq!(publisher.apply(&desired).unwrap(), Report::default());
    });
}

#[test]
fn other_limits_wait_and_other_maps_are_refused() {
    with_pins(|pins| {
        drop(Programs::load(&config(pins, 100)).unwrap());
        let programs = Programs::load(&config(pins, 200)).unwrap();
        assert_eq!(programs.limits().flows, 100);
        assert!(
            programs.problems()[0].contains("has room for 100 flows, not for 200"),
            "{:?}",
            programs.problems()
        );
        drop(programs);
        // Somebody else's map in the place of ours.
        let path = lb_packet::pin_root(pins).join("v1/VIPS");
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(path.with_file_name("FATES"), &path).unwrap();
        let refused = Programs::load(&config(pins, 100)).err().unwrap();
        assert!(
            matches!(&refused, Error::Layout { path: it } if *it == path),
            "{refused}"
        );
        std::fs::create_dir(lb_packet::pin_root(pins).join("v77")).unwrap();
        let refused = Programs::load(&config(pins, 100)).err().unwrap();
        assert!(
            matches!(refused, Error::Version { version: 77, .. }),
            "{refused}"
        );
    });
}

#[test]
fn a_wrong_configuration_is_refused_with_a_remedy() {
    with_pins(|pins| {
        let wrong = |change: fn(&mut Config), word: &str| {
            let mut config = config(pins, 100);
            change(&mut config);
            let refused = Programs::load(&config).err().unwrap().to_string();
            assert!(refused.contains(word), "{refused}");
        };
        wrong(|it| it.limits.services = 0, "endpoints");
        wrong(|it| it.limits.backends = 65_536, "65535 backends");
        wrong(|it| it.limits.flows = 0, "flow");
        #[expect(clippy::reversed_empty_ranges, reason = "that is what is wrong")]
        wrong(|it| it.ports = 5..=4, "no range of ports");
        wrong(|it| it.ports = 0..=4, "at least 1");
        wrong(|it| it.own = Ipv4Addr::new(10, 0, 0, 1), "not in the pool");
        wrong(
            |it| it.source4 = Some(Ipv4Addr::new(198, 18, 0, 9)),
            "source",
        );
    });
}

#[test]
fn a_device_that_is_not_there_is_told() {
    with_pins(|pins| {
        let mut programs = Programs::load(&config(pins, 100)).unwrap();
        let refused = programs
            .attach("lb-none", lb_packet::Role::Client)
            .err()
            .unwrap();
        assert!(
            refused
                .to_string()
                .contains("there is no network device lb-none"),
            "{refused}"
        );
    });
}
