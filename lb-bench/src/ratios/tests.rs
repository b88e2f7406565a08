use super::*;

#[test]
fn a_ratio_is_of_the_two_slices_of_each_variant_in_one_round() {
    let mut rounds = Rounds::default();
    let rate = |variant| match variant {
        Variant::Base => 100.0,
        Variant::Tried => 95.0,
        Variant::Control => 101.0,
        Variant::Rival(Rival::Haproxy) => 38.0,
        Variant::Rival(Rival::Nft) => 76.0,
    };
    let rates = |rivals| {
        order(rivals, 0)
            .into_iter()
            .map(|variant| (variant, rate(variant)))
    };
    rounds.add(&rates(&[Rival::Nft]).collect::<Vec<_>>());
    assert_eq!(rounds.tried, [0.95]);
    assert_eq!(rounds.control, [1.01]);
    assert_eq!(rounds.over, BTreeMap::from([(Rival::Nft, vec![1.25])]));
    rounds.add(&rates(&Rival::ALL).collect::<Vec<_>>());
    assert_eq!(rounds.over[&Rival::Haproxy], [2.5]);
}

#[test]
fn a_steady_drift_changes_no_ratio_whoever_comes_first() {
    for round in 0..10 {
        let rates: Vec<_> = order(&Rival::ALL, round)
            .into_iter()
            .zip((10..).map(f64::from))
            .collect();
        assert_eq!(rates.len(), 10);
        let mut rounds = Rounds::default();
        rounds.add(&rates);
        assert_eq!((rounds.tried[0], rounds.control[0]), (1.0, 1.0));
        assert_eq!(rounds.over[&Rival::Haproxy], rounds.over[&Rival::Nft]);
    }
}

#[test]
fn everybody_comes_after_everybody_else_about_equally_often() {
    let mut times = BTreeMap::<String, usize>::new();
    for round in 0..125 {
        for pair in order(&Rival::ALL, round).windows(2) {
            *times.entry(format!("{pair:?}")).or_default() += 1;
        }
    }
    // In 125 rounds each of the 20 pairs of two has 50 turns if all have as many, and the middle one of five 25.
    assert_eq!(times.len(), 25);
    assert!(
        times.values().all(|times| (15..75).contains(times)),
        "{times:?}"
    );
}

#[test]
fn rounds_suffice_when_they_are_many_and_the_interval_is_narrow() {
    let rounds = |ratios: &[f64]| Rounds {
        tried: ratios.to_vec(),
        ..Rounds::default()
    };
    let suffice = |rounds: Rounds| rounds.suffice(Comparison::Bystander, 3);
    assert!(suffice(rounds(&[0.98, 0.981, 0.979])));
    assert!(!suffice(rounds(&[0.98, 0.981])), "too few");
    assert!(!suffice(rounds(&[0.9, 0.98, 1.1])), "too wide");
}

#[test]
fn rounds_do_not_suffice_while_the_interval_over_a_rival_is_wide() {
    let rounds = |over: &[f64]| Rounds {
        tried: vec![0.98, 0.981, 0.979],
        over: BTreeMap::from([(Rival::Nft, over.to_vec())]),
        ..Rounds::default()
    };
    let suffice = |rounds: Rounds| rounds.suffice(Comparison::Datagrams, 3);
    assert!(suffice(rounds(&[3.0, 3.1, 2.98])), "of what it is");
    assert!(!suffice(rounds(&[1.0, 1.1, 0.98])));
    assert!(!suffice(rounds(&[])));
}
