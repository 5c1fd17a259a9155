//! The order that torch's `RandomSampler` gives: `torch.randperm` on a CPU, bit for bit, drawn as it is asked for.

use crate::mt19937::Mt19937;

/// How many places are drawn at a time: their accesses to memory overlap.
const BLOCK: usize = 256;

/// `torch.randperm(len, generator=...)`, from any place on.
///
/// Torch shuffles by Fisher and Yates's method, from the front: at each place it swaps in one of the indices that are
/// left, and never comes back to it. So a place is drawn when it is asked for, which costs the first one nothing.
///
/// What has been swapped is kept as the exclusive or of index and place, which is 0 where nothing has: memory that nobody
/// has touched yet, and that the system gives page by page.
///
/// ```
/// use forebay_order::{Mt19937, TorchPermutation};
/// let mut indices = [0; 5];
/// TorchPermutation::new(5, Mt19937::new(0), 0).fill(&mut indices);
/// assert_eq!(indices, [4, 0, 1, 3, 2]);
/// let mut rest = [0; 2];
/// TorchPermutation::new(5, Mt19937::new(0), 3).fill(&mut rest);
/// assert_eq!(rest, [3, 2]);
/// ```
#[derive(Debug, Clone)]
pub struct TorchPermutation {
    len: usize,
    place: usize,
    /// Of the places from `first` on.
    swapped: Vec<u32>,
    first: usize,
    random: Mt19937,
}

impl TorchPermutation {
    /// The most samples: torch draws longer permutations in a way that knows no index before the last draw.
    pub const MOST: u64 = (u32::MAX / 20 - 1) as u64;

    /// A permutation of `0..len`, drawn from `random`, from the place `start` on.
    ///
    /// # Panics
    /// When `len` is more than [`MOST`](Self::MOST), or less than `start`.
    pub fn new(len: u64, mut random: Mt19937, start: u64) -> Self {
        assert!(start <= len && len <= Self::MOST, "a permutation of {len} samples from place {start} on");
        let (len, start) = (len as usize, start as usize);
        let swapped = swapped_before(start, len, &mut random);
        Self { len, place: start, swapped, first: start, random }
    }

    /// How many words a whole permutation of `len` samples takes from its generator.
    pub fn draws(len: u64) -> u64 {
        len.saturating_sub(1)
    }

    /// How many places have not been given yet.
    pub fn left(&self) -> u64 {
        (self.len - self.place) as u64
    }

    /// The indices at the next places, as many as `indices` holds.
    ///
    /// # Panics
    /// When fewer are left.
    pub fn fill(&mut self, indices: &mut [u64]) {
        assert!(indices.len() as u64 <= self.left(), "{} places of {} left", indices.len(), self.left());
        for block in indices.chunks_mut(BLOCK) {
            let others = drawn(&mut self.random, self.place, block.len(), self.len);
            for (index, other) in block.iter_mut().zip(others) {
                let here = self.swapped[self.place - self.first] ^ self.place as u32;
                let there = &mut self.swapped[other as usize - self.first];
                *index = u64::from(*there ^ other);
                *there = here ^ other;
                self.place += 1;
            }
        }
    }
}

/// For each of `count` places, at most a block, from `place` on: the one that it is swapped with.
fn drawn(random: &mut Mt19937, place: usize, count: usize, len: usize) -> [u32; BLOCK] {
    let mut others = [0; BLOCK];
    let left = len - place;
    // The last place of all is what is left: no draw.
    random.fill(&mut others[..count.min(left - 1)]);
    for (offset, other) in others[..count].iter_mut().enumerate() {
        *other = remainder(*other, (left - offset) as u32) + (place + offset) as u32;
    }
    others
}

/// `word % divisor`, in a way that several at a time can be had. The divisor is below 2^31.
fn remainder(word: u32, divisor: u32) -> u32 {
    /// Added to a number below it, leaves the nearest integer in the low bits.
    const TWO_TO_52: f64 = (1u64 << 52) as f64;
    let nearest = (f64::from(word) / f64::from(divisor) + TWO_TO_52).to_bits() as u32;
    let rest = word.wrapping_sub(nearest.wrapping_mul(divisor)).cast_signed();
    rest.wrapping_add(rest >> 31 & divisor.cast_signed()).cast_unsigned()
}

/// What places are worked on together: as many as the processor's cache holds.
const REGION_BITS: u32 = 16;
const REGION: usize = 1 << REGION_BITS;

/// Swaps the places before `start`: what then stands at those from there on, combined with the place itself.
///
/// An index that is swapped into a place far away is noted there, and looked at again when that region's turn has come:
/// so memory is read and written in sequence, which is faster than every swap at its random place, and less of it is
/// needed than for all places.
fn swapped_before(start: usize, len: usize, random: &mut Mt19937) -> Vec<u32> {
    let mut notes = Notes::new(if start == 0 { 0 } else { len.div_ceil(REGION) });
    let mut region = vec![0; REGION];
    for first in (0..start).step_by(REGION) {
        let number = first >> REGION_BITS;
        region.iter_mut().zip(first as u32..).for_each(|(index, place)| *index = place);
        notes.take(number, |place, index| region[place as usize % REGION] = index);
        let end = start.min(first + REGION);
        for place in (first..end).step_by(BLOCK) {
            let count = BLOCK.min(end - place);
            for (place, other) in (place..).zip(&drawn(random, place, count, len)[..count]) {
                let (index, far) = (region[place % REGION], *other as usize >> REGION_BITS);
                if far == number {
                    region[*other as usize % REGION] = index;
                } else {
                    notes.add(far, *other, index);
                }
            }
        }
    }
    let mut swapped = vec![0; len - start];
    if !start.is_multiple_of(REGION) {
        let here = (start as u32..).zip(&region[start % REGION..]);
        here.zip(&mut swapped).for_each(|((place, index), swapped)| *swapped = index ^ place);
    }
    for number in start.div_ceil(REGION)..notes.regions() {
        notes.take(number, |place, index| swapped[place as usize - start] = index ^ place);
    }
    swapped
}

/// Which index was put where, by regions, in the order in which it was.
struct Notes {
    memory: Vec<u64>,
    /// Of each region: where its next note goes.
    ends: Vec<u32>,
    pages: Vec<Vec<u32>>,
    free: Vec<u32>,
}

impl Notes {
    const PAGE: usize = 1024;

    fn new(regions: usize) -> Self {
        let mut notes =
            Self { memory: vec![], ends: vec![0; regions], pages: vec![vec![]; regions], free: vec![] };
        (0..regions).for_each(|region| notes.turn(region));
        notes
    }

    fn regions(&self) -> usize {
        self.ends.len()
    }

    fn add(&mut self, region: usize, place: u32, index: u32) {
        let end = &mut self.ends[region];
        self.memory[*end as usize] = u64::from(place) << 32 | u64::from(index);
        *end += 1;
        if (*end as usize).is_multiple_of(Self::PAGE) {
            self.turn(region);
        }
    }

    #[cold]
    fn turn(&mut self, region: usize) {
        let page = self.free.pop().unwrap_or_else(|| {
            let end = self.memory.len();
            self.memory.resize(end + Self::PAGE, 0);
            end as u32
        });
        self.pages[region].push(page);
        self.ends[region] = page;
    }

    /// Gives all of a region's notes, and forgets them.
    fn take(&mut self, region: usize, mut each: impl FnMut(u32, u32)) {
        let pages = std::mem::take(&mut self.pages[region]);
        for (number, page) in pages.iter().enumerate() {
            let end = if number + 1 == pages.len() { self.ends[region] } else { page + Self::PAGE as u32 };
            for note in &self.memory[*page as usize..end as usize] {
                each((note >> 32) as u32, *note as u32);
            }
        }
        self.free.extend(pages);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rest(len: u64, seed: u32, start: u64) -> Vec<u64> {
        let mut permutation = TorchPermutation::new(len, Mt19937::new(seed), start);
        let mut indices = vec![0; permutation.left() as usize];
        permutation.fill(&mut indices);
        indices
    }

    /// By the book, and all at once.
    fn plain(len: u64, seed: u32) -> Vec<u64> {
        let mut words = vec![0; TorchPermutation::draws(len) as usize];
        Mt19937::new(seed).fill(&mut words);
        let mut indices: Vec<u64> = (0..len).collect();
        for (place, word) in words.into_iter().enumerate() {
            indices.swap(place, place + word as usize % (len as usize - place));
        }
        indices
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_rest_of_a_permutation_is_the_end_of_the_whole(len in 0..300_000u64, seed: u32, cut in 0.0..=1.0f64) {
            let start = (len as f64 * cut) as u64;
            prop_assert_eq!(rest(len, seed, start), &plain(len, seed)[start as usize..]);
        }

        #[test]
        fn places_are_the_same_however_many_are_asked_for(len in 1..3_000u64, seed: u32, size in 1..700usize) {
            let mut permutation = TorchPermutation::new(len, Mt19937::new(seed), 0);
            let mut indices = vec![0; len as usize];
            indices.chunks_mut(size).for_each(|part| permutation.fill(part));
            prop_assert_eq!(indices, plain(len, seed));
        }

        #[test]
        fn remainders_are_exact(word: u32, divisor in 1..1u32 << 31) {
            prop_assert_eq!(remainder(word, divisor), word % divisor);
            let multiple = word - word % divisor;
            prop_assert_eq!(remainder(multiple, divisor), 0);
            prop_assert_eq!(remainder(multiple.saturating_sub(1), divisor), multiple.saturating_sub(1) % divisor);
        }
    }
}
