//! Whatever is so at one moment after the other.

use super::*;

/// Everything that may be known at one moment, drawn from few enough names that moments resemble each other.
#[derive(Clone, Debug)]
struct Moment {
    /// What two sources say.
    sources: [Vec<(u8, Vec<u8>, u8)>; 2],
    vips: BTreeSet<u8>,
    judged: BTreeSet<(u8, bool)>,
    drains: BTreeSet<(u8, u8)>,
    departed: BTreeSet<u8>,
    ramps: BTreeMap<(u8, u8), u8>,
}

/// What a service says beside its name.
const SAYS: [&str; 4] = ["", "hello", "lb_check=off", "lb_balance=x"];

impl Moment {
    fn any() -> impl Strategy<Value = Self> {
        let service = (0..4u8, collection::vec(1..5u8, 0..4), 0..4u8);
        let services = || collection::vec(service.clone(), 0..4);
        (
            [services(), services()],
            collection::btree_set(0..4u8, 0..5),
            collection::btree_set((1..5u8, any::<bool>()), 0..4),
            collection::btree_set((0..4u8, 1..5u8), 0..3),
            collection::btree_set(1..5u8, 0..3),
            collection::btree_map((0..4u8, 1..5u8), 10..100u8, 0..3),
        )
            .prop_map(|(sources, vips, judged, drains, departed, ramps)| Self {
                sources,
                vips,
                judged,
                drains,
                departed,
                ramps,
            })
    }

    fn sources(&self) -> BTreeMap<String, SourceState> {
        let text = |services: &[(u8, Vec<u8>, u8)]| {
            let service = |(name, ids, says): &(u8, Vec<u8>, u8)| {
                let tags = SAYS[usize::from(*says)];
                let instance =
                    |id: &u8| format!("{{ id = \"{id}\", address = \"10.0.0.{id}\", port = 80 }}");
                let instances: Vec<String> = ids.iter().map(instance).collect();
                format!(
                    "[[service]]\nname = \"s{name}\"\ntags = [\"{tags}\"]\ninstance = [{}]\n",
                    instances.join(", ")
                )
            };
            let text: String = services.iter().map(service).collect();
            in_containers(&format!("{text}# End.\n"))
        };
        let [one, other] = &self.sources;
        sources(&[("consul", text(one)), ("file", text(other))])
    }

    fn facts(&self) -> Facts {
        let mut facts = NOTHING;
        for n in &self.vips {
            let vip = |last| Ipv4Addr::new(198, 18, *n, last);
            let (whole, part) = (format!("s{n}"), "hello");
            let names = [
                (ServiceName::whole(&*whole), vip(1)),
                (ServiceName::part(&*whole, part), vip(2)),
            ];
            facts.vips.by_name.extend(names);
        }
        for (last, up) in &self.judged {
            let target = (SocketAddr::from(([10, 0, 0, *last], 80)), CheckKind::Tcp);
            let state = if *up {
                ProbeState::Up
            } else {
                ProbeState::Down
            };
            facts.verdicts.put(target, probe(state));
        }
        for (name, id) in &self.drains {
            let orders = facts.orders.entry(format!("s{name}")).or_default();
            orders.insert(key(&id.to_string()), DRAIN);
        }
        let departed = self.departed.iter().map(|id| format!("container-{id}"));
        facts.departed = departed.collect();
        for ((name, id), percent) in &self.ramps {
            let ramps = facts.ramps.entry(format!("s{name}").into()).or_default();
            ramps.insert(key(&id.to_string()), *percent);
        }
        facts.facts()
    }
}

proptest! {
    #[test]
    fn any_sequence_ends_in_the_snapshot_of_the_last_moment_alone(
        moments in collection::vec(Moment::any(), 1..6), repeats in any::<bool>(),
    ) {
        let mut known = Known::default();
        let mut last: Option<(Snapshot, Facts)> = None;
        for moment in &moments {
            // The same catalogs again share nothing with those before; then everything is looked at.
            for _ in 0..=u8::from(repeats) {
                let changed = known.learn(&moment.sources()).into_iter().collect();
                let facts = moment.facts();
                let before = last.as_ref().map(|(snapshot, facts)| Last {
                    snapshot,
                    facts,
                    changed: &changed,
                });
                let snapshot = compose(&known, &facts, before);
                prop_assert_eq!(&snapshot, &assemble(&moment.sources(), &facts));
                last = Some((snapshot, facts));
            }
        }
    }

    #[test]
    fn what_no_fact_concerns_keeps_its_allocation(moment in Moment::any(), judged in 1..5u8) {
        let known = understand(&moment.sources());
        let facts = moment.facts();
        let first = compose(&known, &facts, None);
        let mut verdicts = Verdicts::clone(&facts.verdicts);
        let address = SocketAddr::from(([10, 0, 0, judged], 80));
        verdicts.put((address, CheckKind::Tcp), probe(ProbeState::Starting));
        let next = Facts { verdicts: Arc::new(verdicts), ..facts.clone() };
        let changed = BTreeSet::new();
        let last = Last { snapshot: &first, facts: &facts, changed: &changed };
        let second = compose(&known, &next, Some(last));
        for (name, service) in &second.services {
            // With a service its parts are made anew.
            let whole = &second.services[&ServiceName::whole(name.service.clone())];
            let concerned = whole.backends.values().any(|it| it.address == address);
            let probed = service.options.check != CheckKind::Off;
            let kept = Arc::ptr_eq(service, &first.services[name]);
            prop_assert!(kept || (concerned && probed), "{name}");
        }
    }
}
