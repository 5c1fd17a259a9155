//! MT19937, the Mersenne Twister: what torch draws random numbers from on a CPU.
//!
//! Source: Matsumoto and Nishimura, "Mersenne twister: a 623-dimensionally equidistributed uniform pseudo-random number
//! generator" (1998).

use std::fmt;

const WORDS: usize = 624;
const SHIFT: usize = 397;

/// A stream of 32-bit words.
#[derive(Clone, PartialEq, Eq)]
pub struct Mt19937 {
    words: [u32; WORDS],
    used: usize,
}

impl Mt19937 {
    /// The stream of a seed. Torch takes the low 32 bits of what it is given.
    ///
    /// ```
    /// use forebay_order::Mt19937;
    /// let mut first = [0];
    /// Mt19937::new(5489).fill(&mut first);
    /// assert_eq!(first, [3_499_211_612]);
    /// ```
    pub fn new(seed: u32) -> Self {
        let mut words = [seed; WORDS];
        for place in 1..WORDS {
            let before = words[place - 1];
            words[place] = 1_812_433_253u32.wrapping_mul(before ^ before >> 30).wrapping_add(place as u32);
        }
        Self { words, used: WORDS }
    }

    /// The next words, as many as `out` holds.
    pub fn fill(&mut self, mut out: &mut [u32]) {
        while !out.is_empty() {
            let (part, rest) = out.split_at_mut(self.ready().min(out.len()));
            let words = &self.words[self.used..][..part.len()];
            part.iter_mut().zip(words).for_each(|(out, word)| *out = tempered(*word));
            self.used += part.len();
            out = rest;
        }
    }

    /// Passes over the next `count` words.
    pub fn skip(&mut self, mut count: u64) {
        while count > 0 {
            let passed = count.min(self.ready() as u64);
            self.used += passed as usize;
            count -= passed;
        }
    }

    /// How many words are there, after new ones were made if there were none.
    fn ready(&mut self) -> usize {
        if self.used == WORDS {
            twist(&mut self.words);
            self.used = 0;
        }
        WORDS - self.used
    }
}

impl fmt::Debug for Mt19937 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mt19937").field("used", &self.used).finish_non_exhaustive()
    }
}

fn twist(words: &mut [u32; WORDS]) {
    for place in 0..WORDS - SHIFT {
        words[place] = words[place + SHIFT] ^ twisted(words[place], words[place + 1]);
    }
    for place in WORDS - SHIFT..WORDS - 1 {
        words[place] = words[place + SHIFT - WORDS] ^ twisted(words[place], words[place + 1]);
    }
    words[WORDS - 1] = words[SHIFT - 1] ^ twisted(words[WORDS - 1], words[0]);
}

fn twisted(high: u32, low: u32) -> u32 {
    let word = high & 0x8000_0000 | low & 0x7FFF_FFFF;
    word >> 1 ^ (word & 1).wrapping_neg() & 0x9908_B0DF
}

fn tempered(mut word: u32) -> u32 {
    word ^= word >> 11;
    word ^= word << 7 & 0x9D2C_5680;
    word ^= word << 15 & 0xEFC6_0000;
    word ^ word >> 18
}

/// Torch's own layout of a generator's state, `torch.Generator.get_state()`: bytes, then where in them what stands.
const STATE_BYTES: usize = 5056;
const LEFT: usize = 8;
const NEXT: usize = 16;
const FIRST_WORD: usize = 24;

/// What is no state of one of torch's CPU generators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateFault {
    /// It has another number of bytes.
    Length(usize),
    /// What it says of how many words were used contradicts itself: words left, and the next one's place.
    Used(u32, u64),
}

impl fmt::Display for StateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => {
                write!(f, "the state of a CPU generator has {STATE_BYTES} bytes, but this has {bytes}")
            }
            Self::Used(left, next) => {
                write!(f, "no state of a CPU generator has {left} words left and goes on at word {next}")
            }
        }
    }
}

impl std::error::Error for StateFault {}

impl Mt19937 {
    /// The stream that a generator of torch's is going to give.
    ///
    /// # Errors
    /// When `state` is not what `torch.Generator.get_state()` gives for a CPU.
    pub fn of_torch(state: &[u8]) -> Result<Self, StateFault> {
        if state.len() != STATE_BYTES {
            return Err(StateFault::Length(state.len()));
        }
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| state[at + byte]));
        let (left, next) = (word(LEFT), u64::from(word(NEXT)) | u64::from(word(NEXT + 4)) << 32);
        // A generator that has just been seeded has used nothing of what it has, and makes new words nevertheless.
        let used = match (left, next) {
            (1, 0) => WORDS,
            (1..=624, _) if u64::from(left) + next == 625 => next as usize,
            _ => return Err(StateFault::Used(left, next)),
        };
        Ok(Self { words: std::array::from_fn(|place| word(FIRST_WORD + 8 * place)), used })
    }

    /// Writes where this stream stands into the state of the generator that it was taken of.
    ///
    /// # Errors
    /// When `state` is not the state of a CPU generator.
    pub fn to_torch(&self, state: &mut [u8]) -> Result<(), StateFault> {
        if Self::of_torch(state)? == *self {
            return Ok(());
        }
        let mut write = |at: usize, value: u64| state[at..at + 8].copy_from_slice(&value.to_le_bytes());
        // The upper half of the first says that the generator has been seeded.
        write(LEFT, 1 << 32 | (WORDS - self.used + 1) as u64);
        write(NEXT, self.used as u64);
        self.words
            .iter()
            .enumerate()
            .for_each(|(place, word)| write(FIRST_WORD + 8 * place, u64::from(*word)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ten_thousandth_word_is_that_of_the_standard() {
        let mut rng = Mt19937::new(5489);
        rng.skip(9_999);
        let mut word = [0];
        rng.fill(&mut word);
        assert_eq!(word, [4_123_659_995]);
    }

    #[test]
    fn words_are_the_same_however_they_are_asked_for() {
        let mut whole = vec![0; 3_000];
        Mt19937::new(7).fill(&mut whole);
        for part in [1, 7, 623, 624, 625, 2_000] {
            let mut rng = Mt19937::new(7);
            let mut parts = vec![0; 3_000];
            parts.chunks_mut(part).for_each(|part| rng.fill(part));
            assert_eq!(parts, whole);
            let mut rng = Mt19937::new(7);
            rng.skip(part as u64);
            rng.fill(&mut parts[..900]);
            assert_eq!(parts[..900], whole[part..part + 900]);
        }
    }

    fn state(left: u64, next: u64) -> Vec<u8> {
        let mut state = vec![7; STATE_BYTES];
        state[LEFT..LEFT + 8].copy_from_slice(&(1 << 32 | left).to_le_bytes());
        state[NEXT..NEXT + 8].copy_from_slice(&next.to_le_bytes());
        state
    }

    #[test]
    fn a_state_that_goes_there_and_back_says_where_the_stream_stands() {
        for skipped in [1, 623, 624, 625, 10_000] {
            let mut bytes = state(1, 0);
            let mut rng = Mt19937::of_torch(&bytes).expect("a state");
            rng.skip(skipped);
            rng.to_torch(&mut bytes).expect("a state");
            assert_eq!(Mt19937::of_torch(&bytes), Ok(rng));
            assert_eq!(bytes[5016..], [7; 40], "what is no part of the stream stays");
        }
    }

    #[test]
    fn what_is_no_state_is_refused() {
        for length in [0, 1, STATE_BYTES - 1, STATE_BYTES + 1] {
            assert_eq!(Mt19937::of_torch(&vec![0; length]), Err(StateFault::Length(length)));
            assert_eq!(Mt19937::new(0).to_torch(&mut vec![0; length]), Err(StateFault::Length(length)));
        }
        for (left, next) in [
            (0, 0),
            (0, 625),
            (1, 1),
            (624, 0),
            (625, 0),
            (600, 26),
            (u64::from(u32::MAX), 626),
            (2, 1 << 40),
        ] {
            assert_eq!(Mt19937::of_torch(&state(left, next)), Err(StateFault::Used(left as u32, next)));
        }
    }
}
