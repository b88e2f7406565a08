use std::{cell::Cell, collections::BTreeMap, ops::Bound, sync::Arc};

use proptest::{collection::vec, prelude::*};

use super::{CHUNK, CowMap};

/// A change of a map: a key, and what to put there or to take away.
type Step = (u16, Option<u8>);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Few enough keys that they meet, enough for several chunks. Seven steps of ten put a value in.
    let step = (0..600_u16, 0..366_u16).prop_map(|(key, value)| (key, u8::try_from(value).ok()));
    vec(step, 0..1500)
}

fn apply(map: &mut CowMap<u16, u8>, model: &mut BTreeMap<u16, u8>, steps: &[Step]) {
    for &(key, value) in steps {
        match value {
            Some(value) => assert_eq!(map.insert(key, value), model.insert(key, value)),
            None => assert_eq!(map.remove(&key), model.remove(&key)),
        }
    }
    let chunks = map.chunks.iter().map(|chunk| chunk.len());
    assert!(chunks.clone().all(|len| (1..=CHUNK).contains(&len)));
    assert_eq!(chunks.sum::<usize>(), map.len());
}

proptest! {
    // A case has some 1,500 changes.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_holds_what_the_standard_map_holds_and_so_do_its_copies(first in steps(), second in steps(), at in 0..600_u16) {
        let (mut map, mut model) = (CowMap::new(), BTreeMap::new());
        apply(&mut map, &mut model, &first);
        let (before, model_before) = (map.clone(), model.clone());
        apply(&mut map, &mut model, &second);
        for (map, model) in [(&before, &model_before), (&map, &model)] {
            prop_assert!(map.iter().eq(model));
            prop_assert_eq!((map.len(), map.is_empty()), (model.len(), model.is_empty()));
            prop_assert_eq!(map.get_key_value(&at), model.get_key_value(&at));
            for start in [Bound::Included(&at), Bound::Excluded(&at), Bound::Unbounded] {
                prop_assert!(map.tail(start).eq(model.range((start, Bound::Unbounded))));
            }
        }
        let differ = |key: &u16| model_before.get(key) != model.get(key);
        let expected: Vec<_> = (0..600).filter(differ).map(|it| (it, model_before.get(&it), model.get(&it))).collect();
        let found = before.differences(&map, |one, other| one == other);
        let found: Vec<_> = found.map(|(key, old, new)| (*key, old, new)).collect();
        prop_assert_eq!(&found, &expected);
        prop_assert_eq!(before == map, expected.is_empty());
    }
}

#[test]
fn after_a_change_all_but_one_chunk_is_shared_and_not_looked_at() {
    let before: CowMap<usize, Arc<str>> = (0..10_000).map(|it| (it, "same".into())).collect();
    let shares = |map: &CowMap<usize, Arc<str>>| {
        let of_before = |it| before.chunks.iter().any(|before| Arc::ptr_eq(before, it));
        map.chunks.iter().filter(|it| of_before(it)).count()
    };
    let looked_at = |after: &CowMap<usize, Arc<str>>| {
        let looked_at = Cell::new(0);
        let found = before.differences(after, |one, other| {
            looked_at.set(looked_at.get() + 1);
            one == other
        });
        let found = found.count();
        (found, looked_at.get())
    };
    let mut after = before.clone();
    assert_eq!(
        (shares(&after), looked_at(&after)),
        (before.chunks.len(), (0, 0))
    );
    after.insert(5_000, "another".into());
    assert_eq!(shares(&after), before.chunks.len() - 1);
    assert_eq!(looked_at(&after), (1, CHUNK));
    // A chunk that was split or grew lets the chunks after it meet again.
    after.insert(10_001, "more".into());
    after.remove(&100);
    let (found, looked_at) = looked_at(&after);
    assert_eq!(found, 3);
    assert!(looked_at <= 3 * CHUNK, "{looked_at}");
}

#[test]
fn a_map_that_shrinks_keeps_few_chunks() {
    let mut map: CowMap<usize, ()> = (0..10_000).map(|it| (it, ())).collect();
    assert!(map.chunks.len() <= 10_000 / CHUNK + 1, "filled in order");
    for key in (0..10_000).filter(|it| it % 50 != 0) {
        map.remove(&key);
    }
    assert!(map.iter().map(|(key, ())| key / 50).eq(0..200));
    assert!(map.chunks.len() <= 10, "{}", map.chunks.len());
    // Two become one as soon as they fill half of it.
    let mut map: CowMap<usize, ()> = (0..2 * CHUNK).map(|it| (it, ())).collect();
    let quarter = CHUNK / 4;
    for key in (quarter..CHUNK).chain(CHUNK + quarter + 1..2 * CHUNK) {
        map.remove(&key);
    }
    assert_eq!(map.chunks.len(), 2);
    map.remove(&CHUNK);
    assert_eq!((map.chunks.len(), map.len()), (1, 2 * quarter));
}

#[test]
fn a_chunk_is_halved_where_more_may_come_between_and_filled_where_all_comes_in_order() {
    let lens = |map: &CowMap<usize, ()>| -> Vec<usize> {
        map.chunks.iter().map(|chunk| chunk.len()).collect()
    };
    let half = CHUNK / 2;
    let in_order: CowMap<usize, ()> = (0..2 * CHUNK).map(|it| (10 * it, ())).collect();
    assert_eq!(lens(&in_order), [CHUNK, CHUNK]);
    let backwards: CowMap<usize, ()> = (0..=CHUNK).rev().map(|it| (it, ())).collect();
    assert_eq!(lens(&backwards), [half, half + 1]);
    // Behind all of the first chunk, and yet before the second.
    let mut between = in_order.clone();
    between.insert(10 * CHUNK - 5, ());
    assert_eq!(lens(&between), [half, half + 1, CHUNK]);
    // In the last chunk, and not behind all of it.
    let mut within = in_order;
    within.insert(10 * CHUNK + 5, ());
    assert_eq!(lens(&within), [CHUNK, half, half + 1]);
}

#[test]
fn values_are_changed_in_place_and_those_of_copies_stay() {
    assert!(CowMap::<&str, u8>::new().is_empty());
    let before: CowMap<&str, u8> = [("a", 1), ("b", 2)].into();
    let mut after = before.clone();
    assert_eq!(after.get_mut("c"), None);
    *after.get_mut("b").unwrap() = 20;
    assert_eq!((after["a"], after["b"]), (1, 20));
    after.values_mut().for_each(|value| *value += 1);
    assert!(after.values().eq(&[2, 21]) && after.keys().eq(&["a", "b"]));
    assert!(before.iter().eq([(&"a", &1), (&"b", &2)]));
    assert!(before.contains_key("a") && !before.contains_key("c"));
    assert_eq!((before.get("b"), before.get("c")), (Some(&2), None));
    let written = serde_json::to_string(&after).unwrap();
    assert_eq!(written, r#"{"a":2,"b":21}"#);
}
