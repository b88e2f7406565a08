//! What holds where several registrations of a service say something.

use super::*;

#[test]
fn who_states_a_share_for_canaries_is_one_and_the_newest_share_counts() {
    let resolved = resolve(
        "s",
        &[
            instance(1, &["lb_canary=5"]),
            instance(2, &[]),
            instance(3, &["lb_canary=10"]),
            instance(4, &["lb_canary=ten"]),
        ],
    );
    let canaries: Vec<&str> = resolved.canaries.iter().map(|key| &*key.id).collect();
    assert_eq!(canaries, ["1", "3"]);
    let front = resolved.options.front.unwrap();
    assert_eq!(front.canary.as_ref().unwrap().share, 1_000);
    // The wrong value, and the disagreement.
    assert_eq!(resolved.problems.len(), 2);
}

#[test]
fn a_weight_belongs_to_its_instance() {
    let resolved = resolve(
        "s",
        &[
            instance(1, &["lb_weight=0"]),
            instance(2, &["lb_weight=5"]),
            instance(3, &[]),
        ],
    );
    let weights: Vec<u16> = resolved.weights.values().copied().collect();
    assert_eq!(weights, [0, 5]);
    assert_eq!(resolved.problems, BTreeSet::new());
}

#[test]
fn the_newest_registration_that_states_an_option_wins_and_the_rest_is_told() {
    let resolved = resolve(
        "s",
        &[
            instance(5, &["lb_balance=random"]),
            instance(9, &[]),
            instance(7, &["lb_balance=round-robin"]),
        ],
    );
    assert_eq!(resolved.options.balance, Balance::RoundRobin);
    let problem = resolved.problems.first().unwrap().to_string();
    assert!(
        problem.contains("`round-robin` of the newest wins over `random`"),
        "{problem}"
    );
}

#[test]
fn a_registration_that_contradicts_itself_is_told_and_says_the_first() {
    for (first, second) in [
        ("lb_balance=random", "lb_balance=round-robin"),
        ("lb_weight=3", "lb_weight=4"),
    ] {
        let resolved = tagged(&[second, first, "lb_drain=7"]);
        let [problem] = &resolved.problems.iter().collect::<Vec<_>>()[..] else {
            panic!("{:?}", resolved.problems);
        };
        assert!(problem.message.contains("say it once"), "{problem}");
        assert!(
            problem.message.contains(&format!("says `{first}`")),
            "{problem}"
        );
        assert_eq!(resolved.options.drain, Duration::from_secs(7));
    }
}

#[test]
fn a_registration_that_says_the_same_twice_does_not_contradict_itself() {
    let resolved = tagged(&["lb_balance=random", "LB_Balance = random"]);
    assert_eq!(resolved.options.balance, Balance::Random);
    assert_eq!(resolved.problems, BTreeSet::new());
}

#[test]
fn two_spellings_of_one_value_do_not_disagree() {
    let resolved = resolve(
        "s",
        &[
            instance(1, &["lb_drain=60s"]),
            instance(2, &["lb_drain=1m"]),
        ],
    );
    assert_eq!(resolved.problems, BTreeSet::new());
}

#[test]
fn meta_wins_over_a_tag_of_the_same_registration() {
    let mut one = instance(1, &["lb_balance=random"]);
    let meta = [("lb_balance", "round-robin"), ("other", "is not ours")];
    let meta = meta.map(|(name, text)| (name.to_owned(), text.to_owned()));
    Arc::make_mut(&mut one).meta = Arc::new(meta.into());
    let resolved = resolve("s", &[one]);
    assert_eq!(resolved.options.balance, Balance::RoundRobin);
    assert_eq!(resolved.problems, BTreeSet::new());
}

#[test]
fn aliases_are_the_union_over_all_instances() {
    let resolved = resolve(
        "s",
        &[
            instance(1, &["server_alias=A.example.org", "server_aliases=b:c.d:"]),
            instance(2, &["server_alias=my_app.test.", "server_alias=b"]),
        ],
    );
    let aliases: Vec<&str> = resolved.aliases.iter().map(String::as_str).collect();
    assert_eq!(aliases, ["a.example.org", "b", "c.d", "my_app.test"]);
    assert_eq!(resolved.problems, BTreeSet::new());
}
