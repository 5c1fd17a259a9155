//! A bounded queue of 64-byte records with one producer and one consumer, which may live in two processes.
//!
//! ```text
//! words:  0        8        16                       16 + 8 * capacity
//!         head ... tail ... record 0 | record 1 | ... |
//! ```
//!
//! `head` and `tail` count records since the queue was made and never wrap in practice (2^64 records).
//! Each side keeps its own counter privately and only ever *publishes* it, so the other side cannot mislead
//! it about itself; the counter read from the other side is checked on every use.
//!
//! A producer that dies before `tail` is published leaves the queue as it was: half a record is never seen.

use crate::ShmError;
use crate::sync::{Ordering, SharedWords};

/// Words in one record (64 bytes, one cache line).
pub const RECORD_WORDS: usize = 8;
/// One record: what it means is the business of the layer above.
pub type Record = [u64; RECORD_WORDS];

const HEAD: usize = 0;
const TAIL: usize = 8;
const RECORDS: usize = 16;

/// How many words a queue of `capacity` records takes.
pub const fn queue_words(capacity: u64) -> usize {
    RECORDS + capacity as usize * RECORD_WORDS
}

/// The writing end. Not `Clone`: there is one producer.
#[derive(Debug)]
pub struct Producer<W> {
    words: W,
    capacity: u64,
    tail: u64,
}

/// The reading end. Not `Clone`: there is one consumer.
#[derive(Debug)]
pub struct Consumer<W> {
    words: W,
    capacity: u64,
    head: u64,
}

impl<W: SharedWords> Producer<W> {
    /// The producer of an untouched (all zero) queue over `words`.
    ///
    /// # Panics
    /// When `words` is too short for `capacity` records.
    pub fn new(words: W, capacity: u64) -> Self {
        assert!(words.count() >= queue_words(capacity) && capacity > 0);
        Self { words, capacity, tail: 0 }
    }

    /// Appends `record`.
    ///
    /// # Errors
    /// [`ShmError::QueueFull`] when `capacity` records wait, [`ShmError::Corrupt`] when the consumer's counter
    /// is impossible.
    pub fn push(&mut self, record: &Record) -> Result<(), ShmError> {
        // SYNC POINT queue-space: pairs with the release of `head` in `pop`; the consumer has finished reading
        // the record that this one overwrites.
        let head = self.words.word(HEAD).load(Ordering::Acquire);
        match self.tail.checked_sub(head) {
            Some(waiting) if waiting < self.capacity => {}
            Some(waiting) if waiting == self.capacity => {
                return Err(ShmError::QueueFull { capacity: self.capacity });
            }
            _ => return Err(ShmError::Corrupt { what: "a queue's head", value: head }),
        }
        let first = record_word(self.tail, self.capacity);
        for (offset, value) in record.iter().enumerate() {
            self.words.word(first + offset).store(*value, Ordering::Relaxed);
        }
        self.tail += 1;
        // SYNC POINT queue-record: pairs with the acquire of `tail` in `pop`; whoever sees the new tail sees the
        // record, and all slot bytes written before it.
        self.words.word(TAIL).store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<W: SharedWords> Consumer<W> {
    /// The consumer of an untouched (all zero) queue over `words`.
    ///
    /// # Panics
    /// When `words` is too short for `capacity` records.
    pub fn new(words: W, capacity: u64) -> Self {
        assert!(words.count() >= queue_words(capacity) && capacity > 0);
        Self { words, capacity, head: 0 }
    }

    /// Takes the oldest record, or `None` when the queue is empty.
    ///
    /// # Errors
    /// [`ShmError::Corrupt`] when the producer's counter is impossible.
    pub fn pop(&mut self) -> Result<Option<Record>, ShmError> {
        // SYNC POINT queue-record: pairs with the release of `tail` in `push`.
        let tail = self.words.word(TAIL).load(Ordering::Acquire);
        match tail.checked_sub(self.head) {
            Some(0) => return Ok(None),
            Some(waiting) if waiting <= self.capacity => {}
            _ => return Err(ShmError::Corrupt { what: "a queue's tail", value: tail }),
        }
        let first = record_word(self.head, self.capacity);
        let record = std::array::from_fn(|offset| self.words.word(first + offset).load(Ordering::Relaxed));
        self.head += 1;
        // SYNC POINT queue-space: pairs with the acquire of `head` in `push`.
        self.words.word(HEAD).store(self.head, Ordering::Release);
        Ok(Some(record))
    }
}

fn record_word(counter: u64, capacity: u64) -> usize {
    RECORDS + (counter % capacity) as usize * RECORD_WORDS
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sync::HeapWords;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::sync::Arc;

    fn pair(capacity: u64) -> (Producer<Arc<HeapWords>>, Consumer<Arc<HeapWords>>, Arc<HeapWords>) {
        let words = Arc::new(HeapWords::new(queue_words(capacity)));
        (Producer::new(words.clone(), capacity), Consumer::new(words.clone(), capacity), words)
    }

    proptest! {
        #[test]
        fn a_queue_behaves_like_a_bounded_deque(capacity in 1u64..9, pushes in prop::collection::vec(any::<bool>(), 0..200)) {
            let (mut producer, mut consumer, _) = pair(capacity);
            let mut model = VecDeque::new();
            for (number, push) in pushes.into_iter().enumerate() {
                if push {
                    let outcome = producer.push(&[number as u64; RECORD_WORDS]);
                    if (model.len() as u64) < capacity {
                        prop_assert!(outcome.is_ok());
                        model.push_back(number as u64);
                    } else {
                        let full = matches!(outcome, Err(ShmError::QueueFull { .. }));
                        prop_assert!(full);
                    }
                } else {
                    let popped = consumer.pop().unwrap();
                    prop_assert_eq!(popped, model.pop_front().map(|number| [number; RECORD_WORDS]));
                }
            }
        }

        #[test]
        fn a_hostile_counter_is_an_error_or_an_empty_read_but_never_a_wrong_access(head in any::<u64>(), tail in any::<u64>()) {
            let (mut producer, mut consumer, words) = pair(4);
            words.word(HEAD).store(head, Ordering::Relaxed);
            words.word(TAIL).store(tail, Ordering::Relaxed);
            let popped = consumer.pop();
            prop_assert_eq!(popped.is_ok(), tail <= 4);
            words.word(HEAD).store(head, Ordering::Relaxed);
            prop_assert_eq!(producer.push(&[0; RECORD_WORDS]).is_ok(), head == 0);
        }
    }
}
