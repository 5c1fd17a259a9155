//! Who makes which rows of a batch: what all workers of a loader see and write at once.
//!
//! ```text
//! words:  0            8            8 * workers
//!         at of 0 ...  at of 1 ...  entry 0 | entry 1 | ...
//!
//! entry:  0          8     9     10     11    12    13      14           16
//!         claim ...  left  step  epoch  slot  rows  format  indices_len  place, length of the part of 0 | of 1 | ...
//!
//! claim:  low half of the step (32 bits) | begun | joint | rows that nobody has claimed (30 bits)
//! ```
//!
//! The batch of a step stands in entry `step % entries` from its [`post`](Board::post) until it is published. A worker takes
//! a row by one compare-and-swap of `claim` and then owes it: `left`, the rows that are not done, cannot
//! become 0 before it [hands in](Board::hand_in) as many as it has claimed. Until then the entry stays as it is, so
//! all else in it is read after a claim and needs no second look. Whoever brings `left` to 0 is the *finisher*: it sees
//! all parts, and publishes the batch. Nobody waits for anybody.
//!
//! Before it claims, a worker writes the step into its own word (`at`), and clears it when it owes nothing more. So of a worker
//! that has died it is known which batch its lost rows are of.

use std::ops::Range;

use crate::sync::{Ordering, SharedWords};
use crate::{ShmError, Span};

/// The most rows of one batch.
pub const MAX_ROWS: u32 = JOINT as u32 - 1;

const LINE: usize = 8;
const CLAIM: usize = 0;
const LEFT: usize = 8;
const FIELDS: usize = 9;
const PARTS: usize = 16;

const BEGUN: u64 = 1 << 31;
const JOINT: u64 = 1 << 30;
const UNCLAIMED: u64 = JOINT - 1;

/// How many words a board takes.
pub const fn board_words(entries: u64, workers: u32) -> usize {
    workers as usize * LINE + entries as usize * entry_words(workers)
}

const fn entry_words(workers: u32) -> usize {
    PARTS + (2 * workers as usize).next_multiple_of(LINE)
}

/// A batch to be made, as it stands on the board.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// Which batch of the loader's life, counted from 0.
    pub step: u64,
    /// Which epoch of the loader's life, counted from 0.
    pub epoch: u64,
    /// The slot that it is to be made in; the indices are at its start.
    pub slot: u32,
    /// How many rows, at least 1 and at most [`MAX_ROWS`].
    pub rows: u32,
    /// The front's mark of how the indices are written.
    pub format: u32,
    /// Bytes of the indices.
    pub indices_len: u64,
}

/// Which batches a worker that has nothing to do looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// Those that nobody has begun.
    Alone,
    /// Those, and those that all begin together.
    Unbegun,
    /// Any that has rows left.
    Any,
}

/// What one worker makes of a batch: it has claimed rows, and owes them.
#[derive(Debug)]
pub struct Part {
    /// The batch.
    pub posting: Posting,
    entry: u64,
    /// The first row that was claimed.
    first: u32,
    /// How many were.
    claimed: u32,
}

impl Part {
    /// The row that was claimed when the part was begun.
    pub fn first_row(&self) -> u32 {
        self.first
    }

    /// The place of the batch on the board.
    pub fn entry(&self) -> u64 {
        self.entry
    }
}

/// The board, as the trainer or one of the workers sees it.
#[derive(Debug, Clone)]
pub struct Board<W> {
    words: W,
    entries: u64,
    workers: u32,
}

impl<W: SharedWords> Board<W> {
    /// The board over `words`, untouched (all zero) when the first one is made.
    ///
    /// # Panics
    /// When `words` is too short.
    pub fn new(words: W, entries: u64, workers: u32) -> Self {
        assert!(words.count() >= board_words(entries, workers) && entries > 0 && workers > 0);
        Self { words, entries, workers }
    }

    /// How many batches can stand on it: at most as many steps may lie between two of them.
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Puts a batch up. The batch that stood in its place must have been published. Called by the trainer.
    ///
    /// `joint`: every worker that has nothing to do joins in at once.
    ///
    /// # Panics
    /// When there are no rows or too many: a mistake of the caller.
    pub fn post(&self, posting: &Posting, joint: bool) {
        let Posting { step, epoch, slot, rows, format, indices_len } = *posting;
        assert!((1..=MAX_ROWS).contains(&rows), "{rows} rows");
        let entry = step % self.entries;
        let fields = [step, epoch, slot.into(), rows.into(), format.into(), indices_len];
        for (offset, value) in fields.into_iter().enumerate() {
            self.word(entry, FIELDS + offset).store(value, Ordering::Relaxed);
        }
        for word in 0..2 * self.workers as usize {
            self.word(entry, PARTS + word).store(0, Ordering::Relaxed);
        }
        self.word(entry, LEFT).store(rows.into(), Ordering::Relaxed);
        let joint = if joint { JOINT } else { 0 };
        // SYNC POINT board-post: pairs with the acquire in `take`; whoever claims a row sees the posting and the indices.
        self.word(entry, CLAIM).store(tag(step) << 32 | joint | u64::from(rows), Ordering::Release);
    }

    /// Whether some batch has rows that nobody has claimed.
    pub fn has_rows(&self) -> bool {
        (0..self.entries).any(|entry| self.claim(entry) & UNCLAIMED > 0)
    }

    /// Whether every row of the batch of `step` is done.
    pub fn is_complete(&self, step: u64) -> bool {
        let entry = step % self.entries;
        let claim = self.claim(entry);
        claim >> 32 == tag(step)
            && claim & UNCLAIMED == 0
            && self.word(entry, LEFT).load(Ordering::Relaxed) == 0
    }

    /// The step of the batch that `worker` owes rows of, or publishes.
    pub fn at(&self, worker: u32) -> Option<u64> {
        self.words.word(worker as usize * LINE).load(Ordering::Relaxed).checked_sub(1)
    }

    /// `worker` owes nothing any more.
    pub fn leave(&self, worker: u32) {
        self.set_at(worker, 0);
    }

    /// Claims a row of the oldest batch that is wanted, if there is one.
    ///
    /// # Errors
    /// [`ShmError::Corrupt`] when what stands there is impossible.
    pub fn begin(&self, worker: u32, wanted: Wanted) -> Result<Option<Part>, ShmError> {
        while let Some((entry, seen)) = self.oldest(wanted) {
            // A guess that may be stale; the trainer needs it only where the claim below succeeds.
            let step = self.word(entry, FIELDS).load(Ordering::Relaxed);
            self.set_at(worker, step.wrapping_add(1));
            if self.take(entry, seen, 1) {
                return self.begun(worker, entry, seen).map(Some);
            }
        }
        self.leave(worker);
        Ok(None)
    }

    /// Claims one more row of the same batch, if one is left.
    pub fn next_row(&self, part: &mut Part) -> Option<u32> {
        loop {
            let seen = self.claim(part.entry);
            let unclaimed = unclaimed_of(seen, part)?;
            if self.take(part.entry, seen, 1) {
                part.claimed += 1;
                return Some(part.posting.rows - unclaimed);
            }
        }
    }

    /// Claims all rows of the same batch that are left.
    pub fn rest(&self, part: &mut Part) -> Range<u32> {
        let rows = part.posting.rows;
        loop {
            let seen = self.claim(part.entry);
            let Some(unclaimed) = unclaimed_of(seen, part) else { return rows..rows };
            if self.take(part.entry, seen, unclaimed) {
                part.claimed += unclaimed;
                return rows - unclaimed..rows;
            }
        }
    }

    /// Whether all other rows are done, so that handing in will make this worker the finisher.
    pub fn is_last(&self, part: &Part) -> bool {
        self.word(part.entry, LEFT).load(Ordering::Relaxed) == part.claimed.into()
    }

    /// The rows of `part` are done; what was made of them is described by the bytes at `written` of the worker's
    /// scratch slot, if it is there at all. Tells whether this worker is the finisher.
    ///
    /// # Errors
    /// [`ShmError::Corrupt`] when fewer rows were left than this worker owed.
    pub fn hand_in(&self, worker: u32, part: &Part, written: Option<Span>) -> Result<bool, ShmError> {
        if let Some(Span { offset, len }) = written {
            let first = PARTS + 2 * worker as usize;
            self.word(part.entry, first).store(offset, Ordering::Relaxed);
            self.word(part.entry, first + 1).store(len, Ordering::Relaxed);
        }
        let owed = u64::from(part.claimed);
        // SYNC POINT board-parts: each part's bytes are released here, and whoever brings the word to 0 acquires them all.
        let left = self.word(part.entry, LEFT).fetch_sub(owed, Ordering::AcqRel);
        match left.checked_sub(owed) {
            Some(left) if left <= part.posting.rows.into() => Ok(left == 0),
            _ => Err(ShmError::Corrupt { what: "the rows left of a batch", value: left }),
        }
    }

    /// The parts that were handed in by others, with their workers. Called by the finisher.
    pub fn parts(&self, worker: u32, part: &Part) -> Vec<(u32, Span)> {
        let span = |other: u32| {
            let word = |place| self.word(part.entry, PARTS + place).load(Ordering::Relaxed);
            let first = 2 * other as usize;
            (other, Span { offset: word(first), len: word(first + 1) })
        };
        let others = (0..self.workers).filter(|other| *other != worker);
        others.map(span).filter(|(_, span)| span.len > 0).collect()
    }

    /// The oldest batch with rows to claim: its entry, and its claim word.
    fn oldest(&self, wanted: Wanted) -> Option<(u64, u64)> {
        let mut found: Option<(u64, u64)> = None;
        for entry in 0..self.entries {
            let claim = self.claim(entry);
            let fits = match wanted {
                Wanted::Alone => claim & BEGUN == 0,
                Wanted::Unbegun => claim & BEGUN == 0 || claim & JOINT != 0,
                Wanted::Any => true,
            };
            if claim & UNCLAIMED > 0 && fits && found.is_none_or(|(_, oldest)| is_before(claim, oldest)) {
                found = Some((entry, claim));
            }
        }
        found
    }

    /// Takes `count` rows, unless somebody else was faster than this look at the word.
    fn take(&self, entry: u64, seen: u64, count: u32) -> bool {
        let after = (seen | BEGUN) - u64::from(count);
        // SYNC POINT board-post, and the rows of one batch are handed out one after the other.
        let swapped =
            self.word(entry, CLAIM).compare_exchange(seen, after, Ordering::AcqRel, Ordering::Relaxed);
        swapped.is_ok()
    }

    /// Reads what stands in an entry of which a row was just claimed: nobody changes it now.
    fn begun(&self, worker: u32, entry: u64, claim: u64) -> Result<Part, ShmError> {
        let [step, epoch, slot, rows, format, indices_len] =
            std::array::from_fn(|offset| self.word(entry, FIELDS + offset).load(Ordering::Relaxed));
        let corrupt = |what, value| ShmError::Corrupt { what, value };
        let small = |what, value| u32::try_from(value).map_err(|_| corrupt(what, value));
        if tag(step) != claim >> 32 || step % self.entries != entry {
            return Err(corrupt("the step of a batch", step));
        }
        let rows = small("the number of rows", rows)?;
        let unclaimed = (claim & UNCLAIMED) as u32;
        let first = rows.checked_sub(unclaimed).ok_or(corrupt("the number of rows", rows.into()))?;
        let (slot, format) = (small("a slot's number", slot)?, small("the format of indices", format)?);
        self.set_at(worker, step.wrapping_add(1));
        let posting = Posting { step, epoch, slot, rows, format, indices_len };
        Ok(Part { posting, entry, first, claimed: 1 })
    }

    fn claim(&self, entry: u64) -> u64 {
        self.word(entry, CLAIM).load(Ordering::Relaxed)
    }

    fn set_at(&self, worker: u32, value: u64) {
        self.words.word(worker as usize * LINE).store(value, Ordering::Relaxed);
    }

    fn word(&self, entry: u64, offset: usize) -> &crate::sync::AtomicU64 {
        let first = self.workers as usize * LINE + entry as usize * entry_words(self.workers);
        self.words.word(first + offset)
    }
}

/// Half of a step: enough to tell the batches apart that can stand on the board at once, and their order.
fn tag(step: u64) -> u64 {
    step & u64::from(u32::MAX)
}

/// Whether one claim word is of an older batch than another.
fn is_before(claim: u64, other: u64) -> bool {
    ((claim >> 32) as u32).wrapping_sub((other >> 32) as u32) as i32 <= -1
}

/// The rows that are left to claim of the batch of `part`, or `None`.
fn unclaimed_of(claim: u64, part: &Part) -> Option<u32> {
    let unclaimed = (claim & UNCLAIMED) as u32;
    let same = claim >> 32 == tag(part.posting.step) && unclaimed < part.posting.rows;
    (same && unclaimed > 0).then_some(unclaimed)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::HeapWords;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    const WORKERS: u32 = 3;

    fn board(entries: u64) -> (Board<Arc<HeapWords>>, Arc<HeapWords>) {
        let words = Arc::new(HeapWords::new(board_words(entries, WORKERS)));
        (Board::new(words.clone(), entries, WORKERS), words)
    }

    fn posting(step: u64, rows: u32) -> Posting {
        Posting { step, epoch: 7, slot: step as u32, rows, format: 1, indices_len: 99 }
    }

    #[test]
    fn a_claim_tells_what_was_posted() {
        let (board, _) = board(4);
        board.post(&posting(6, 2), false);
        let part = board.begin(1, Wanted::Unbegun).unwrap().unwrap();
        assert_eq!((part.posting, part.first_row(), board.at(1)), (posting(6, 2), 0, Some(6)));
    }

    #[test]
    fn the_oldest_batch_comes_first_also_when_halves_of_steps_begin_anew() {
        let (board, _) = board(4);
        let first = u64::from(u32::MAX) - 1;
        for step in (first..first + 4).rev() {
            board.post(&posting(step, 1), false);
        }
        for step in first..first + 4 {
            assert_eq!(board.begin(0, Wanted::Any).unwrap().unwrap().posting.step, step);
        }
        assert!(board.begin(0, Wanted::Any).unwrap().is_none());
        assert_eq!(board.at(0), None);
    }

    #[test]
    fn a_batch_that_was_begun_is_left_alone_unless_help_is_wanted_or_all_begin_it_together() {
        let (board, _) = board(4);
        board.post(&posting(0, 4), false);
        board.post(&posting(1, 4), true);
        let step = |wanted| board.begin(0, wanted).unwrap().map(|part| part.posting.step);
        assert_eq!([Wanted::Alone; 3].map(step), [Some(0), Some(1), None]);
        assert_eq!([Wanted::Unbegun, Wanted::Any].map(step), [Some(1), Some(0)]);
    }

    #[test]
    fn parts_of_the_batch_before_are_gone_when_an_entry_is_used_again() {
        let (board, _) = board(1);
        for (step, seen) in [(0, 1), (1, 0)] {
            board.post(&posting(step, 2), false);
            let [first, second] = [0, 1].map(|worker| board.begin(worker, Wanted::Any).unwrap().unwrap());
            let span = (step == 0).then_some(Span { offset: 64, len: 8 });
            assert!(!board.hand_in(0, &first, span).unwrap());
            assert!(!board.is_complete(step));
            assert!(board.is_last(&second));
            assert!(board.hand_in(1, &second, None).unwrap());
            assert!(board.is_complete(step));
            assert_eq!(board.parts(1, &second).len(), seen);
        }
    }

    proptest! {
        /// Workers do what they may in any order: each row is claimed once, and each batch has one finisher, the last.
        #[test]
        fn every_row_is_claimed_once_and_every_batch_finished_once(
            rows in prop::collection::vec(1u32..6, 1..5),
            moves in prop::collection::vec((0..WORKERS, 0u8..5), 0..150),
        ) {
            let (board, _) = board(4);
            for (step, rows) in rows.iter().enumerate() {
                board.post(&posting(step as u64, *rows), step == 0);
            }
            let mut at: BTreeMap<u32, Part> = BTreeMap::new();
            let mut claimed: Vec<Vec<u32>> = vec![Vec::new(); rows.len()];
            let mut finished = vec![0; rows.len()];
            let finishing = (0..WORKERS).flat_map(|worker| [(worker, 4), (worker, 1), (worker, 3), (worker, 4)]);
            for (worker, what) in moves.into_iter().chain(finishing.cycle().take(200)) {
                let Some(part) = at.get_mut(&worker) else {
                    let wanted = if what == 0 { Wanted::Unbegun } else { Wanted::Any };
                    if let Some(part) = board.begin(worker, wanted).unwrap() {
                        claimed[part.posting.step as usize].push(part.first_row());
                        at.insert(worker, part);
                    }
                    continue;
                };
                let step = part.posting.step as usize;
                prop_assert_eq!(board.at(worker), Some(step as u64));
                match what {
                    0..=2 => claimed[step].extend(board.next_row(part)),
                    3 => claimed[step].extend(board.rest(part)),
                    _ => {
                        let part = at.remove(&worker).unwrap();
                        let last = board.is_last(&part);
                        let finishes = board.hand_in(worker, &part, None).unwrap();
                        prop_assert_eq!(last, finishes, "nobody came in between");
                        finished[step] += u32::from(finishes);
                        if finishes {
                            prop_assert_eq!(claimed[step].len(), rows[step] as usize);
                        }
                        board.leave(worker);
                    }
                }
            }
            for (claimed, rows) in claimed.iter_mut().zip(&rows) {
                claimed.sort_unstable();
                prop_assert_eq!(&*claimed, &(0..*rows).collect::<Vec<_>>());
            }
            prop_assert_eq!(finished, vec![1; rows.len()]);
            prop_assert!(!board.has_rows());
        }

        #[test]
        fn a_hostile_board_is_an_error_or_a_part_of_itself_but_never_a_wrong_access(
            changes in prop::collection::vec((0usize..80, prop_oneof![any::<u64>(), 0u64..9]), 1..9),
        ) {
            let (board, words) = board(2);
            board.post(&posting(0, 3), true);
            for (word, value) in changes {
                words.word(word % words.count()).store(value, Ordering::Relaxed);
            }
            if let Ok(Some(mut part)) = board.begin(0, Wanted::Any) {
                prop_assert!(part.first_row() < part.posting.rows);
                if let Some(row) = board.next_row(&mut part) {
                    prop_assert!(row < part.posting.rows);
                }
                prop_assert!(board.rest(&mut part).end <= part.posting.rows);
                let _ = board.hand_in(0, &part, None);
                let _ = board.parts(0, &part);
            }
        }
    }
}
