//! Every interleaving of the two lock-free agreements, explored by loom:
//! `RUSTFLAGS="--cfg loom" cargo test -p forebay-shm --release --test loom`.
#![cfg(loom)]

use forebay_shm::bell::Sleeper;
use forebay_shm::queue::{Consumer, Producer, RECORD_WORDS, queue_words};
use forebay_shm::sync::HeapWords;
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
