//! Draws by weight.

use crate::key::{Key, Use};

/// Blocks of an index's words: the first is for draws with replacement, whose numbers are places.
const FIRST_OF_EXPONENTIAL: u64 = 1;

/// Draws with replacement, each as likely as its weight, and each a function of its place.
///
/// Every column of the table is an index that shares its column with one other (its alias), so that a draw looks at one
/// column. Source: Vose, "A linear algorithm for generating random numbers with a given distribution" (1991).
///
/// ```
/// use forebay_order::{Alias, Key};
/// let alias = Alias::new(&[0.0, 3.0, 0.0]).unwrap();
/// assert_eq!(alias.draw(Key::new(7, 0), 1_000_000), 1);
/// ```
#[derive(Debug, Clone)]
pub struct Alias {
    columns: Vec<Column>,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    /// The part of the column that is its own.
    own: f64,
    /// Whose the rest is.
    alias: usize,
}

impl Alias {
    /// A table of these weights, in time and memory proportional to their number. None if they are no distribution: if
    /// one is negative or not finite, or none is positive.
    pub fn new(weights: &[f64]) -> Option<Self> {
        let heaviest = heaviest_of(weights)?;
        // First by the largest, so that the sum of huge weights stays finite.
        let relative = |weight: &f64| weight / weights[heaviest];
        let mean = weights.iter().map(relative).sum::<f64>() / weights.len() as f64;
        let mut columns: Vec<Column> =
            weights.iter().map(|weight| Column { own: relative(weight) / mean, alias: heaviest }).collect();
        let (mut short, mut tall): (Vec<usize>, Vec<usize>) =
            (0..columns.len()).partition(|&index| columns[index].own < 1.0);
        while let (Some(&giver), Some(taker)) = (tall.last(), short.pop()) {
            columns[taker].alias = giver;
            columns[giver].own -= 1.0 - columns[taker].own;
            if columns[giver].own < 1.0 {
                tall.pop();
                short.push(giver);
            }
        }
        // What is left over is full, but for rounding; a weight of zero must stay empty for all that.
        for index in tall.into_iter().chain(short) {
            if weights[index] > 0.0 {
                columns[index].own = 1.0;
            }
        }
        Some(Self { columns })
    }

    /// The index at a place of an epoch.
    pub fn draw(&self, key: Key, place: u64) -> u64 {
        let [column, height, ..] = key.words(Use::Weights, place, 0);
        let column = ((u128::from(column) * self.columns.len() as u128) >> 64) as usize;
        let Column { own, alias } = self.columns[column];
        (if unit(height) < own { column } else { alias }) as u64
    }
}

/// The first `count` indices of an order without replacement, in which heavy ones tend to come early. None if fewer than
/// `count` weights are positive.
///
/// Each index waits for an exponential time that is the shorter, the heavier it is; the order is that of their ends.
/// That is what drawing one after the other from those that are left would give. Source: Efraimidis and Spirakis,
/// "Weighted random sampling with a reservoir" (2006), whose keys are the exponentials of these times.
///
/// ```
/// use forebay_order::{weighted_order, Key};
/// assert_eq!(weighted_order(&[0.0, 3.0, 0.0], Key::new(7, 0), 1), Some(vec![1]));
/// assert_eq!(weighted_order(&[0.0, 3.0, 0.0], Key::new(7, 0), 2), None);
/// ```
pub fn weighted_order(weights: &[f64], key: Key, count: usize) -> Option<Vec<u64>> {
    let positive = weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0);
    let mut ends: Vec<(f64, u64)> =
        positive.map(|(index, weight)| (exponential(key, index as u64) / weight, index as u64)).collect();
    if count > ends.len() {
        return None;
    }
    let earlier =
        |some: &(f64, u64), other: &(f64, u64)| some.0.total_cmp(&other.0).then(some.1.cmp(&other.1));
    if count < ends.len() {
        ends.select_nth_unstable_by(count, earlier);
        ends.truncate(count);
    }
    ends.sort_unstable_by(earlier);
    Some(ends.into_iter().map(|(_, index)| index).collect())
}

/// An exponential variate of an index, by comparisons only: a logarithm's last bit would depend on the machine.
///
/// Source: von Neumann, "Various techniques used in connection with random digits" (1951).
fn exponential(key: Key, index: u64) -> f64 {
    let mut uniforms =
        (FIRST_OF_EXPONENTIAL..).flat_map(|block| key.words(Use::Weights, index, block)).map(unit);
    let mut next = || uniforms.next().unwrap_or_default(); // they have no end
    let mut whole = 0.0;
    loop {
        let first = next();
        let (mut last, mut falling) = (first, 1_u32);
        loop {
            let this = next();
            if this >= last {
                break;
            }
            (last, falling) = (this, falling + 1);
        }
        if falling % 2 == 1 {
            return whole + first;
        }
        whole += 1.0;
    }
}

/// The index of the largest weight, if the weights are a distribution.
fn heaviest_of(weights: &[f64]) -> Option<usize> {
    let legal = weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0);
    let heaviest =
        (0..weights.len()).reduce(|most, index| if weights[index] > weights[most] { index } else { most });
    heaviest.filter(|&index| legal && weights[index] > 0.0)
}

/// A number from 0 up to but not including 1, of 53 bits.
fn unit(word: u64) -> f64 {
    (word >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weights() -> impl Strategy<Value = Vec<f64>> {
        let one = prop_oneof![Just(0.0), Just(1e-300), Just(1e308), Just(f64::MIN_POSITIVE / 8.0), 0.0..10.0];
        proptest::collection::vec(one, 1..60)
            .prop_filter("none is positive", |all| all.iter().any(|one| *one > 0.0))
    }

    proptest! {
        #[test]
        fn a_weight_of_zero_is_never_drawn(weights in weights(), seed: u64) {
            let (alias, key) = (Alias::new(&weights).unwrap(), Key::new(seed, 0));
            prop_assert!((0..300).all(|place| weights[alias.draw(key, place) as usize] > 0.0));
        }

        #[test]
        fn the_table_has_the_share_of_every_weight(weights in weights()) {
            let columns = Alias::new(&weights).unwrap().columns;
            let mut shares = vec![0.0; weights.len()];
            for (index, Column { own, alias }) in columns.iter().enumerate() {
                shares[index] += own;
                shares[*alias] += 1.0 - own;
            }
            let most = weights.iter().copied().fold(0.0, f64::max);
            let sum: f64 = weights.iter().map(|weight| weight / most).sum();
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!((share / weights.len() as f64 - weight / most / sum).abs() < 1e-12);
            }
        }

        #[test]
        fn without_replacement_the_first_indices_are_those_of_the_whole_order(
            weights in weights(), seed: u64, part in 0.0..=1.0f64,
        ) {
            let key = Key::new(seed, 0);
            let positive = weights.iter().filter(|weight| **weight > 0.0).count();
            let whole = weighted_order(&weights, key, positive).unwrap();
            let mut indices = whole.clone();
            indices.sort_unstable();
            indices.dedup();
            prop_assert_eq!(indices.len(), positive);
            let count = (positive as f64 * part) as usize;
            prop_assert_eq!(weighted_order(&weights, key, count).unwrap(), &whole[..count]);
            prop_assert_eq!(weighted_order(&weights, key, positive + 1), None);
        }
    }

    #[test]
    fn what_is_no_distribution_has_no_table() {
        for weights in [&[][..], &[0.0, 0.0], &[1.0, -1.0], &[f64::NAN, 1.0], &[f64::INFINITY]] {
            assert!(Alias::new(weights).is_none(), "{weights:?}");
        }
    }

    #[test]
    fn waiting_times_are_exponential() {
        let count = 100_000;
        let times: Vec<f64> = (0..count).map(|index| exponential(Key::new(7, 0), index)).collect();
        for limit in [0.1, 0.5, 1.0, 2.0, 4.0] {
            let (expected, found) =
                (1.0 - f64::exp(-limit), times.iter().filter(|time| **time < limit).count());
            let deviation = (found as f64 - expected * count as f64)
                / (count as f64 * expected * (1.0 - expected)).sqrt();
            assert!(deviation.abs() < 4.0, "{limit}: {deviation} standard deviations");
        }
    }
}
