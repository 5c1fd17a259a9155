//! The order of a shuffled epoch, computed place by place.

use crate::key::{Key, SampleRng, Use};

/// Orders of up to so many samples are drawn as a table, by Fisher and Yates's method: each of all permutations is as
/// likely, which a network cannot give so few values.
const LARGEST_TABLE: u64 = 1 << 12;
const ROUNDS: usize = 8;
/// How many values are mapped together.
const BLOCK: usize = 256;
/// Blocks of random words set aside for one order.
const BLOCKS: u64 = 16;

/// A bijection of `0..len`, different for every key, without a list of its values.
///
/// A Feistel network mixes as many bits as `len` has: in turn each half is changed by a keyed function of the other,
/// which can be undone, so no two values meet. What it maps beyond `len` is mapped on until it comes back (Black and
/// Rogaway, "Ciphers with arbitrary finite domains", 2002): less than two rounds of the network on average.
///
/// ```
/// use forebay_order::{Key, Shuffle};
/// let shuffle = Shuffle::new(1_000_000_000_000, Key::new(7, 0));
/// let mut places = [0; 3];
/// shuffle.fill(999_999, &mut places);
/// assert_eq!(places[0], shuffle.at(999_999));
/// ```
#[derive(Debug, Clone)]
pub struct Shuffle {
    len: u64,
    network: Network,
    /// All values, where there are few.
    table: Option<Vec<u16>>,
}

impl Shuffle {
    /// The most samples an order can have.
    pub const MOST: u64 = 1 << 63;

    /// The order of one epoch over `len` samples.
    ///
    /// # Panics
    /// When `len` is more than [`MOST`](Self::MOST).
    pub fn new(len: u64, key: Key) -> Self {
        Self::part(len, key, 0)
    }

    /// One of several independent orders of one epoch, by its number: of the samples of one group, say. Number 0 is the
    /// epoch's own.
    ///
    /// # Panics
    /// When `len` is more than [`MOST`](Self::MOST), or `part` is 2^59 or more.
    pub fn part(len: u64, key: Key, part: u64) -> Self {
        assert!(len <= Self::MOST, "an order of {len} samples");
        assert!(part < 1 << 59, "part {part} of an epoch");
        let words = |round: usize| key.words(Use::Order, len, part * BLOCKS + round as u64);
        let table = (len <= LARGEST_TABLE).then(|| permutation(len as u16, words(ROUNDS)));
        Self { len, network: Network::new(len, words), table }
    }

    /// How many samples are ordered.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The index at a place of the order.
    ///
    /// # Panics
    /// When there is no such place.
    pub fn at(&self, place: u64) -> u64 {
        assert!(place < self.len, "place {place} of {}", self.len);
        match &self.table {
            Some(table) => table[place as usize].into(),
            None => self.walk(place),
        }
    }

    /// The indices at the places from `start` on, as many as `indices` holds.
    ///
    /// # Panics
    /// When the order has fewer.
    pub fn fill(&self, start: u64, indices: &mut [u64]) {
        let end = start.checked_add(indices.len() as u64);
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{} places from {start} of {}",
            indices.len(),
            self.len
        );
        match &self.table {
            Some(table) => {
                let places = &table[start as usize..];
                indices.iter_mut().zip(places).for_each(|(index, place)| *index = (*place).into());
            }
            None => {
                let places = (start..).step_by(BLOCK);
                indices
                    .chunks_mut(BLOCK)
                    .zip(places)
                    .for_each(|(block, start)| self.fill_block(start, block));
            }
        }
    }

    /// Maps a block together, and again together those that have left the range: a processor that had to guess for each
    /// of them whether it has would wait half of its time.
    fn fill_block(&self, start: u64, block: &mut [u64]) {
        let mut values = [0; BLOCK];
        values.iter_mut().zip(start..).for_each(|(value, place)| *value = place);
        let mut slots: [usize; BLOCK] = std::array::from_fn(|slot| slot);
        let mut walking = block.len();
        while walking > 0 {
            let mut away = 0;
            for walker in 0..walking {
                let (value, slot) = (self.network.map(values[walker]), slots[walker]);
                block[slot] = value;
                (values[away], slots[away]) = (value, slot);
                away += usize::from(value >= self.len);
            }
            walking = away;
        }
    }

    fn walk(&self, place: u64) -> u64 {
        let mut value = self.network.map(place);
        while value >= self.len {
            value = self.network.map(value);
        }
        value
    }
}

/// A bijection of as many bits as `len` needs.
#[derive(Debug, Clone)]
struct Network {
    low_bits: u32,
    low_mask: u64,
    high_mask: u64,
    /// Of each round: what is added to its input, and what it is multiplied by.
    keys: [[u64; 2]; ROUNDS],
}

impl Network {
    fn new(len: u64, words: impl Fn(usize) -> [u64; 4]) -> Self {
        let bits = (u64::BITS - len.saturating_sub(1).leading_zeros()).max(2);
        let low_bits = bits / 2;
        let high_bits = bits - low_bits;
        let keys = std::array::from_fn(|round| {
            let [added, multiplier, ..] = words(round);
            [added, multiplier | 1]
        });
        Self { low_bits, low_mask: (1 << low_bits) - 1, high_mask: (1 << high_bits) - 1, keys }
    }

    fn map(&self, value: u64) -> u64 {
        let (mut low, mut high) = (value & self.low_mask, value >> self.low_bits);
        for pair in self.keys.chunks_exact(2) {
            low ^= mixed(high, pair[0]) & self.low_mask;
            high ^= mixed(low, pair[1]) & self.high_mask;
        }
        high << self.low_bits | low
    }
}

/// A keyed hash: both halves of a 128-bit product, folded together.
fn mixed(value: u64, [added, multiplier]: [u64; 2]) -> u64 {
    let product = u128::from(value ^ added) * u128::from(multiplier);
    (product >> 64) as u64 ^ product as u64
}

fn permutation(len: u16, [first, second, ..]: [u64; 4]) -> Vec<u16> {
    let mut rng = SampleRng::new([first, second]);
    let mut order: Vec<u16> = (0..len).collect();
    for last in (1..order.len()).rev() {
        order.swap(last, rng.below(last as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn whole(shuffle: &Shuffle) -> Vec<u64> {
        let mut indices = vec![0; shuffle.len() as usize];
        shuffle.fill(0, &mut indices);
        indices
    }

    proptest! {
        #[test]
        fn every_index_comes_exactly_once(len in 0..20_000u64, seed: u64, epoch: u64) {
            let mut indices = whole(&Shuffle::new(len, Key::new(seed, epoch)));
            indices.sort_unstable();
            prop_assert!(indices.into_iter().eq(0..len));
        }

        #[test]
        fn any_part_can_be_told_alone(len in 1..20_000u64, seed: u64, cut in 0.0..1.0f64) {
            let shuffle = Shuffle::new(len, Key::new(seed, 0));
            let start = (len as f64 * cut) as u64;
            let mut part = vec![0; (len - start).min(100) as usize];
            shuffle.fill(start, &mut part);
            prop_assert_eq!(&part, &whole(&shuffle)[start as usize..][..part.len()]);
            prop_assert_eq!(part[0], shuffle.at(start));
        }

        #[test]
        fn orders_beyond_all_memory_stay_within_their_length(len in 1 << 40..=Shuffle::MOST, seed: u64, place: u64) {
            prop_assert!(Shuffle::new(len, Key::new(seed, 0)).at(place % len) < len);
        }
    }
}
