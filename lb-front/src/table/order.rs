//! The order in which backends take turns.

/// Indexes of `weights`, each as often as its weight, spread evenly: the smooth weighted round robin that
/// nginx made known. Large weights are scaled down to a table of at most [`ORDER_LIMIT`] or one entry each.
pub(super) fn order(weights: &[u16]) -> Box<[usize]> {
    let divisor = weights
        .iter()
        .fold(0, |divisor, &weight| gcd(divisor, u64::from(weight)))
        .max(1);
    let total: u64 = weights
        .iter()
        .map(|&weight| u64::from(weight) / divisor)
        .sum();
    let scale = total.div_ceil(ORDER_LIMIT).max(1);
    let share = |&weight: &u16| (u64::from(weight) / divisor).div_ceil(scale).cast_signed();
    let shares: Vec<i64> = weights.iter().map(share).collect();
    let total: i64 = shares.iter().sum();
    let mut credit = vec![0; shares.len()];
    let turns = (0..total).map(|_| {
        for (credit, share) in credit.iter_mut().zip(&shares) {
            *credit += share;
        }
        let mut best = 0;
        for place in 1..credit.len() {
            if credit[place] > credit[best] {
                best = place;
            }
        }
        credit[best] -= total;
        best
    });
    turns.collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Entries of one service's order: enough for any weights that people mean.
const ORDER_LIMIT: u64 = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(*order(&[7, 7, 7]), [0, 1, 2]);
    }

    #[test]
    fn a_heavier_backend_is_spread_between_the_others() {
        assert_eq!(*order(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    }

    #[test]
    fn weight_zero_and_no_backend_take_nothing() {
        assert_eq!(*order(&[0, 3]), [1]);
        assert_eq!(*order(&[0, 0]), [] as [usize; 0]);
        assert_eq!(*order(&[]), [] as [usize; 0]);
    }

    proptest! {
        #[test]
        fn every_weight_above_zero_has_a_turn(weights in proptest::collection::vec(any::<u16>(), 0..40)) {
            let order = order(&weights);
            for (place, &weight) in weights.iter().enumerate() {
                prop_assert_eq!(order.contains(&place), weight > 0);
            }
            prop_assert!(order.len() as u64 <= ORDER_LIMIT + weights.len() as u64);
        }
    }
}
