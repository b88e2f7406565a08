//! Whatever is asked for after the other: no step leaves a gap.

use super::*;

fn catalogs() -> impl Strategy<Value = Vec<BTreeMap<u8, Vec<u8>>>> {
    let members =
        prop::collection::btree_set(1..12_u8, 0..5).prop_map(|set| set.into_iter().collect());
    prop::collection::vec(prop::collection::btree_map(1..6_u8, members, 0..6), 1..12)
}

proptest! {
    #[test]
    fn applying_a_plan_gives_the_desired_and_no_prefix_of_it_leaves_a_gap(catalogs in catalogs()) {
        let mut installed = Installed::empty(64, 64);
        let mut now = Instant::now();
        let mut before = BTreeMap::new();
        for catalog in catalogs {
            let desired = desired(&catalog);
            let after = wanted(&desired);
            let (steps, problems) = plan(&installed, &desired, |_| 0, now);
            prop_assert_eq!(problems, vec![]);
            for step in steps {
                installed.apply(&step, now);
                // `answers` fails when a slot names no backend.
                for (key, members) in answers(&installed) {
                    prop_assert!(before.get(&key) == Some(&members) || after.get(&key) == Some(&members));
                }
            }
            prop_assert_eq!(answers(&installed), after.clone());
            before = after;
            now += Duration::from_secs(10);
        }
    }
}

/// A snapshot of these services: which instances each has, and of each its weight and whether it is usable.
fn snapshot(services: &BTreeMap<u8, BTreeMap<u8, (u16, bool)>>, complete: bool) -> Snapshot {
    let backend = |(n, &(weight, usable)): (&u8, &(u16, bool))| {
        let key = InstanceKey::new("n", n.to_string());
        let state = if usable {
            ProbeState::Up
        } else {
            ProbeState::Down
        };
        let mut backend = snapshot::Backend::usable(address(*n));
        backend.weight = weight;
        backend.probe.state = state;
        (key, backend)
    };
    let service = |(n, members): (&u8, &BTreeMap<u8, (u16, bool)>)| {
        let service = snapshot::Service {
            vip: Some(Ipv4Addr::new(198, 18, 0, *n)),
            options: Options::default(),
            aliases: BTreeSet::new(),
            backends: members.iter().map(backend).collect(),
        };
        (ServiceName::whole(format!("s{n}")), Arc::new(service))
    };
    Snapshot {
        answered: complete,
        complete,
        services: services.iter().map(service).collect(),
        ..Snapshot::default()
    }
}

proptest! {
    #[test]
    fn following_changes_ends_where_the_last_snapshot_alone_does(
        moments in prop::collection::vec(
            (
                prop::collection::btree_map(
                    1..6_u8,
                    prop::collection::btree_map(1..9_u8, (0..4_u16, any::<bool>()), 0..4),
                    0..5,
                ),
                // After so many steps the kernel refuses one.
                prop::option::of(0..4_usize),
            ),
            1..8,
        ),
        unknown in 0..3_usize,
    ) {
        let pools = Pools::default();
        let mut wanted = Wanted::new(pools);
        let mut last = Snapshot::default();
        let mut todo = Todo::default();
        let mut installed = Installed::empty(64, 64);
        let mut now = Instant::now();
        let mut before: BTreeMap<ServiceKey, Vec<SocketAddr>> = BTreeMap::new();
        for (at, (services, refused)) in moments.iter().enumerate() {
            let next = snapshot(services, at >= unknown);
            todo.extend(wanted.follow(&last, &next));
            let desired = wanted.desired().clone();
            prop_assert_eq!(&desired, &Desired::new(&next, pools).0);
            if next.complete && !last.complete {
                todo = Todo::all(&installed, &desired);
            }
            let after = self::wanted(&desired);
            for attempt in [refused.unwrap_or(usize::MAX), usize::MAX] {
                let mut round = Round::new(std::mem::take(&mut todo));
                let mut steps = 0;
                let mut failed = None;
                while let Some(step) = round.next(&mut installed, &desired, |_| 0, now) {
                    if steps == attempt {
                        failed = Some(step);
                        break;
                    }
                    steps += 1;
                    installed.apply(&step, now);
                    for (key, members) in answers(&installed) {
                        let (before, after) = (before.get(&key), after.get(&key));
                        // As long as a source has not answered, also with what nobody names.
                        let added = after.is_some_and(|after| {
                            let rest = members.strip_prefix(&after[..]);
                            let rest = rest.filter(|_| !next.complete);
                            let was = |it: &SocketAddr| before.is_some_and(|them| them.contains(it));
                            rest.is_some_and(|rest| rest.iter().all(was))
                        });
                        prop_assert!(before == Some(&members) || after == Some(&members) || added);
                    }
                }
                let (left, problems) = round.end(failed.as_ref());
                prop_assert_eq!(problems, vec![]);
                todo = left;
            }
            prop_assert!(todo.is_empty(), "{todo:?}");
            if next.complete {
                prop_assert_eq!(answers(&installed), after);
            }
            // Nothing was overlooked.
            let (steps, _) = plan(&installed, &desired, |_| 0, now);
            let frees = |step: &Step| matches!(step, Step::FreeBackend { .. });
            prop_assert!(steps.iter().all(frees), "{steps:?}");
            before = answers(&installed);
            last = next;
            now += Duration::from_secs(10);
            for step in free(&installed, &desired, |_| 0, now) {
                installed.apply(&step, now);
            }
        }
    }
}
