//! Nothing that anybody writes goes beyond what Consul takes, or floods a reader.

use super::*;

#[test]
fn a_problem_repeats_only_the_beginning_of_a_word() {
    let long = "x".repeat(100_000);
    for key in ["IP", "WEIGHT", "NETWORK", "CHECK_TTL", "CHECK_HTPP"] {
        let it = container(&[80], &[(&format!("SERVICE_{key}"), &long)]);
        let problems = read(&it, &internal()).problems;
        assert_eq!(problems.len(), 1);
        assert!(problems[0].message.len() < 400, "{key}");
    }
}

fn any_words() -> impl Strategy<Value = Vec<(String, String)>> {
    let key = prop_oneof![
        "SERVICE_(80_|53_|)(NAME|TAGS|ID|IGNORE|IP|WEIGHT|NETWORK|LB_BALANCE|REGION)",
        "SERVICE_(80_|)CHECK_([0-9]_|)(HTTP|HTTPS|CMD|SCRIPT|TTL|TCP|GRPC|INTERVAL|TIMEOUT|INITIAL_STATUS)",
        "SERVICE_\\PC{0,140}",
        "SERVICE_[0-9]{1,6}_?[A-Z]*",
    ];
    let text = prop_oneof!["\\PC{0,600}", "[0-9a-z,\\\\./:$]{0,12}", any::<String>()];
    proptest::collection::vec((key, text), 0..90)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn whatever_is_written_stays_within_consuls_limits(
        environment in any_words(),
        labels in any_words(),
        ports in proptest::collection::btree_set((1..=100_u16, any::<bool>()), 0..5),
        by_name in any::<bool>(),
        image in "\\PC{0,30}",
    ) {
        let mut it = container(&[], &[]);
        it.image = image;
        it.environment = environment;
        it.labels = labels.into_iter().collect();
        it.exposed = ports.into_iter().map(|(n, is_udp)| if is_udp { udp(n) } else { tcp(n) }).collect();
        it.network = if by_name { NetworkMode::Networks } else { NetworkMode::Host };
        let reading = read(&it, &internal());
        let mut ids = BTreeSet::new();
        for registration in &reading.registrations {
            let Registration { meta, name, id, .. } = registration;
            prop_assert!(!name.is_empty() && !id.is_empty());
            prop_assert!(ids.insert(id));
            prop_assert!(meta.len() <= meta::PAIRS);
            for (key, text) in meta {
                prop_assert!(!key.is_empty() && key.len() <= meta::KEY_LIMIT && text.len() <= meta::VALUE_LIMIT);
                prop_assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
                prop_assert!(!key.starts_with("consul-") && !key.starts_with("check_"));
            }
            prop_assert_eq!(&meta[meta::REGISTRAR], "host1");
            prop_assert_ne!(registration.weight, Some(0));
            let checks: BTreeSet<_> = registration.checks.iter().map(|check| &check.id).collect();
            prop_assert_eq!(checks.len(), registration.checks.len());
        }
    }
}
