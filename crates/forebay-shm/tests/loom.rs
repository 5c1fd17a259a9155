//! Every interleaving of the lock-free agreements, explored by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p forebay-shm --release --test loom`.
#![cfg(loom)]

use forebay_shm::Span;
use forebay_shm::bell::Sleeper;
use forebay_shm::board::{Board, Posting, Wanted, board_words};
use forebay_shm::queue::{Consumer, Producer, RECORD_WORDS, queue_words};
use forebay_shm::sync::{HeapWords, Ordering, SharedWords};
use loom::sync::{Arc as LoomArc, Notify};
use loom::thread;
use std::sync::Arc;

fn queue(capacity: u64) -> (Producer<Arc<HeapWords>>, Consumer<Arc<HeapWords>>) {
    let words = Arc::new(HeapWords::new(queue_words(capacity)));
    (Producer::new(words.clone(), capacity), Consumer::new(words, capacity))
}

#[test]
fn records_arrive_whole_once_and_in_order_whatever_the_interleaving() {
    loom::model(|| {
        let (mut producer, mut consumer) = queue(1);
        let writer = thread::spawn(move || {
            let mut sent = 0;
            while sent < 2 {
                match producer.push(&[sent + 1; RECORD_WORDS]) {
                    Ok(()) => sent += 1,
                    Err(_) => thread::yield_now(),
                }
            }
        });
        let mut seen = 0;
        while seen < 2 {
            match consumer.pop().unwrap() {
                Some(record) => {
                    assert_eq!(record, [seen + 1; RECORD_WORDS]);
                    seen += 1;
                }
                None => thread::yield_now(),
            }
        }
        assert!(consumer.pop().unwrap().is_none());
        writer.join().unwrap();
    });
}

/// The eventfd's twin: `notify` before `wait` is remembered, as a counter is.
fn sleep_until_work<T>(
    sleeper: &Sleeper<Arc<HeapWords>>,
    bell: &Notify,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    loop {
        if let Some(work) = look() {
            return work;
        }
        sleeper.lie_down();
        if let Some(work) = look() {
            sleeper.get_up();
            return work;
        }
        bell.wait();
        sleeper.get_up();
    }
}

#[test]
fn a_sleeper_never_misses_work_and_rings_are_only_for_sleepers() {
    // A lost wake-up would leave the consumer in `bell.wait()` for ever: loom reports the deadlock.
    loom::model(|| {
        let (mut producer, mut consumer) = queue(2);
        let word = Arc::new(HeapWords::new(1));
        let sleeper = Sleeper::new(word.clone(), 0);
        let bell = LoomArc::new(Notify::new());
        let ringer = bell.clone();
        let bringer = thread::spawn(move || {
            let asleep = Sleeper::new(word, 0);
            for number in 1..=2 {
                producer.push(&[number; RECORD_WORDS]).unwrap();
                if asleep.must_ring() {
                    ringer.notify();
                }
            }
        });
        for number in 1..=2 {
            let record = sleep_until_work(&sleeper, &bell, || consumer.pop().unwrap());
            assert_eq!(record, [number; RECORD_WORDS]);
        }
        bringer.join().unwrap();
    });
}

#[test]
fn two_workers_wake_one_trainer() {
    loom::model(|| {
        let word = Arc::new(HeapWords::new(1));
        let bell = LoomArc::new(Notify::new());
        let mut consumers = Vec::new();
        let mut bringers = Vec::new();
        for number in 1..=2u64 {
            let (mut producer, consumer) = queue(1);
            consumers.push(consumer);
            let (word, ringer) = (word.clone(), bell.clone());
            bringers.push(thread::spawn(move || {
                producer.push(&[number; RECORD_WORDS]).unwrap();
                if Sleeper::new(word, 0).must_ring() {
                    ringer.notify();
                }
            }));
        }
        let sleeper = Sleeper::new(word, 0);
        let mut sum = 0;
        for _ in 0..2 {
            let record = sleep_until_work(&sleeper, &bell, || {
                consumers.iter_mut().find_map(|consumer| consumer.pop().unwrap())
            });
            sum += record[0];
        }
        assert_eq!(sum, 3);
        for bringer in bringers {
            bringer.join().unwrap();
        }
    });
}

/// A worker's life at a board: rows of whatever is wanted, each of them written down; tells the batches it finished.
///
/// A word for each row stands for the bytes that were made of it; as those, it is ordered by nothing but the board.
fn help(board: &Board<Arc<HeapWords>>, rows: &Arc<HeapWords>, worker: u32, wanted: Wanted) -> Vec<u64> {
    let mut finished = Vec::new();
    while let Some(mut part) = board.begin(worker, wanted).unwrap() {
        let (step, count) = (part.posting.step, part.posting.rows);
        let word = |row: u32| rows.word((step * 2) as usize + row as usize);
        assert_eq!(part.posting, posting(step, count), "what was posted");
        let mut row = Some(part.first_row());
        while let Some(claimed) = row {
            let before = word(claimed).load(Ordering::Relaxed);
            assert_eq!(before, 0, "row {claimed} of batch {step} is nobody else's");
            word(claimed).store(u64::from(worker) + 1, Ordering::Relaxed);
            row = board.next_row(&mut part);
        }
        let written = Span { offset: 64, len: step + 1 };
        if board.hand_in(worker, &part, Some(written)).unwrap() {
            let makers: Vec<_> = (0..count).map(|row| word(row).load(Ordering::Relaxed)).collect();
            assert!(makers.iter().all(|maker| *maker > 0), "the finisher sees every row: {makers:?}");
            let parts = board.parts(worker, &part);
            let others = makers.iter().any(|maker| *maker != u64::from(worker) + 1);
            let seen: Vec<_> = parts.iter().map(|(_, span)| *span).collect();
            assert_eq!(seen, if others { vec![written] } else { vec![] }, "and every part");
            finished.push(step);
        }
    }
    finished
}

fn posting(step: u64, rows: u32) -> Posting {
    Posting { step, epoch: 3, slot: step as u32, rows, format: 0, indices_len: 8 * (step + 1) }
}

fn board(entries: u64) -> Board<Arc<HeapWords>> {
    Board::new(Arc::new(HeapWords::new(board_words(entries, 2))), entries, 2)
}

#[test]
fn each_row_is_claimed_once_and_one_worker_finishes_who_sees_all_of_them() {
    loom::model(|| {
        let (board, rows) = (board(2), Arc::new(HeapWords::new(4)));
        board.post(&posting(0, 2), false);
        board.post(&posting(1, 1), false);
        let (other, its_rows) = (board.clone(), rows.clone());
        let helper = thread::spawn(move || help(&other, &its_rows, 1, Wanted::Any));
        let mut finished = help(&board, &rows, 0, Wanted::Any);
        finished.extend(helper.join().unwrap());
        finished.sort_unstable();
        assert_eq!(finished, [0, 1]);
    });
}

#[test]
fn a_batch_that_stands_where_another_stood_is_never_taken_for_it() {
    loom::model(|| {
        let (board, rows) = (board(1), Arc::new(HeapWords::new(4)));
        board.post(&posting(0, 2), false);
        let (other, its_rows) = (board.clone(), rows.clone());
        let helper = thread::spawn(move || help(&other, &its_rows, 1, Wanted::Any));
        let mut finished = help(&board, &rows, 0, Wanted::Any);
        if finished == [0] {
            // The finisher's record reached the trainer, here the same thread, which uses the entry again.
            board.post(&posting(1, 2), true);
            finished.extend(help(&board, &rows, 0, Wanted::Unbegun));
        }
        finished.extend(helper.join().unwrap());
        finished.sort_unstable();
        assert!(finished == [0] || finished == [0, 1], "{finished:?}");
        assert!(!board.has_rows());
    });
}
