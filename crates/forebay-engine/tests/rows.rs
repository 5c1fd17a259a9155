//! Several workers make rows of one batch: the batches are those that one worker would make, and nobody waits for another.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{Gate, config, engine, expect_batch, next, watched};
use forebay_engine::layout::{Array, DType, Value};
use forebay_engine::{
    Batch, Complete, Engine, EngineConfig, EngineError, Order, Outcome, Part, Piece, Worker,
};
use forebay_shm::{SlotWriter, Span};
use proptest::prelude::*;

/// What is made of a row, and who made it: asked of every worker, with the row's index.
type Make = Arc<dyn Fn(u32, u32) -> Vec<u8> + Send + Sync>;
type Rows = BTreeMap<u32, Vec<u8>>;

fn sharing(workers: u32, prefetch_factor: u32) -> EngineConfig {
    config(workers, prefetch_factor).sharing_rows()
}

/// An engine whose workers make each row by `make`; a row that is missing at the end is made by the finisher.
fn crew(config: EngineConfig, make: Make) -> Engine {
    engine(config, move |worker| serve(worker, &*make))
}

fn serve(mut worker: Worker, make: &dyn Fn(u32, u32) -> Vec<u8>) -> Result<(), EngineError> {
    loop {
        let mut part = match worker.next_order()? {
            None => continue,
            Some(Order::Stop) => return Ok(()),
            Some(Order::Fill(ticket)) => {
                let rows = Rows::from([(0, make(worker.id(), index(&ticket.indices, 0)))]);
                publish(&mut worker, Complete { ticket, others: Ok(vec![]) }, rows, make)?;
                continue;
            }
            Some(Order::Rows(part)) => part,
        };
        let mut rows = Rows::new();
        let mut row = Some(part.first_row());
        while let Some(place) = row {
            rows.insert(place, make(worker.id(), index(&part.indices, place)));
            row = worker.next_row(&mut part);
        }
        let written = (!worker.is_last(&part)).then(|| written(&worker, &part, &rows)).flatten();
        if let Some(complete) = worker.hand_in(part, written)? {
            publish(&mut worker, complete, rows, make)?;
        }
    }
}

/// The index of row `row` of a batch.
fn index(indices: &[u8], row: u32) -> u32 {
    u32::from_le_bytes(indices[row as usize * 4..][..4].try_into().unwrap())
}

fn indices(of: impl IntoIterator<Item = u32>) -> Vec<u8> {
    of.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// Rows for the finisher: a number and an array each. `None` where there is no room for them.
fn written(worker: &Worker, part: &Part, rows: &Rows) -> Option<(SlotWriter, Value)> {
    let mut writer = worker.scratch(part);
    let described = rows.iter().map(|(row, bytes)| {
        Some(Value::Tuple(vec![Value::Int((*row).into()), array(&mut writer, bytes).ok()?]))
    });
    let value = Value::List(described.collect::<Option<_>>()?);
    Some((writer, value))
}

fn array(writer: &mut SlotWriter, bytes: &[u8]) -> Result<Value, EngineError> {
    let span = Span { offset: writer.append(bytes)?, len: bytes.len() as u64 };
    Ok(Value::Array(Array { flavour: 0, dtype: DType::U8, shape: vec![span.len], strides: None, span }))
}

fn publish(
    worker: &mut Worker,
    complete: Complete,
    mut rows: Rows,
    make: &dyn Fn(u32, u32) -> Vec<u8>,
) -> Result<(), EngineError> {
    let Complete { mut ticket, others } = complete;
    for Piece { value, regions } in others? {
        let Value::List(described) = value else { panic!("{value:?}") };
        for (value, region) in described.into_iter().zip(regions) {
            let Value::Tuple(pair) = value else { panic!("{value:?}") };
            let Value::Int(row) = pair[0] else { panic!("{pair:?}") };
            assert!(rows.insert(row as u32, region.bytes().to_vec()).is_none(), "row {row} was made once");
        }
    }
    let count = ticket.indices.len() as u32 / 4;
    let arrays = (0..count).map(|row| {
        let bytes = rows.remove(&row).unwrap_or_else(|| make(worker.id(), index(&ticket.indices, row)));
        (row, bytes)
    });
    let arrays: Vec<_> = arrays.collect();
    ticket.writer.clear();
    let value: Result<Vec<_>, _> = arrays.iter().map(|(_, bytes)| array(&mut ticket.writer, bytes)).collect();
    let (outcome, value) = match value {
        Ok(arrays) => (Outcome::Batch, Value::List(arrays)),
        Err(error) => {
            ticket.writer.clear();
            (Outcome::Error, Value::Text(error.to_string()))
        }
    };
    worker.finish(ticket, outcome, &value).map_err(|unpublished| unpublished.error)
}

/// What is made of an index: other bytes, and another number of them, for every one.
fn sample(index: u32) -> Vec<u8> {
    (0..index % 97 + index % 5 * 40_000).map(|place| (place.wrapping_mul(31) ^ index) as u8).collect()
}

fn assert_batch(batch: &Batch, indices: &[u8]) {
    assert_eq!(batch.outcome, Outcome::Batch, "{:?}", batch.value);
    assert_eq!(batch.regions.len(), indices.len() / 4);
    for (row, region) in batch.regions.iter().enumerate() {
        assert!(region.bytes() == sample(index(indices, row as u32)), "row {row} of batch {}", batch.step);
    }
}

/// Sends the batches, never more ahead than the window allows, and checks each.
fn travel(engine: &mut Engine, batches: &[Vec<u8>]) {
    let mut ahead = batches.iter();
    for indices in batches {
        while engine.wants()
            && let Some(indices) = ahead.next()
        {
            engine.submit_rows(0, indices.clone(), indices.len() as u32 / 4).unwrap();
        }
        assert_batch(&expect_batch(engine), indices);
    }
    assert!(next(engine).unwrap().is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn batches_are_the_same_and_in_order_whoever_makes_their_rows(
        workers in 2u32..5, prefetch_factor in 1u32..4,
        epochs in prop::collection::vec(prop::collection::vec(1u32..9, 0..12), 1..3),
    ) {
        watched(move || {
            let mut engine = crew(sharing(workers, prefetch_factor), Arc::new(|_, index| sample(index)));
            let mut first = 0;
            for epoch in epochs {
                let batches: Vec<_> = epoch.iter().map(|rows| {
                    first += rows;
                    indices(first - rows..first)
                }).collect();
                travel(&mut engine, &batches);
                engine.restart(0).unwrap();
            }
        });
    }
}

#[test]
fn while_one_row_is_late_the_other_workers_make_all_other_rows_and_batches() {
    watched(|| {
        const ROWS: u32 = 4;
        let (gate, made) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
        let (pass, counted) = (gate.clone(), made.clone());
        let mut engine = crew(
            sharing(2, 2),
            Arc::new(move |_, index| {
                if index == 1 {
                    pass.pass();
                }
                counted.fetch_add(1, Ordering::SeqCst);
                sample(index)
            }),
        );
        let batches: Vec<_> = (0..4).map(|batch| indices(batch * ROWS..(batch + 1) * ROWS)).collect();
        for indices in &batches {
            engine.submit_rows(0, indices.clone(), ROWS).unwrap();
        }
        while made.load(Ordering::SeqCst) < 15 {
            let soon = std::time::Instant::now() + std::time::Duration::from_millis(5);
            assert!(matches!(engine.turn().unwrap(), forebay_engine::Turn::Pending), "its batch is awaited");
            engine.wait(Some(soon)).unwrap();
        }
        let (stuck, step) = engine.awaited().unwrap();
        assert_eq!(step, 0);
        assert!(stuck < 2);
        gate.open();
        for indices in &batches {
            assert_batch(&expect_batch(&mut engine), indices);
        }
    });
}

#[test]
fn all_workers_make_the_first_batch_of_an_epoch_together() {
    watched(|| {
        const WORKERS: u32 = 3;
        for _ in 0..5 {
            // A row of the first batch is done when every worker has one.
            let met = Arc::new(std::sync::Barrier::new(WORKERS as usize));
            let mut engine = crew(
                sharing(WORKERS, 2),
                Arc::new(move |_, index| {
                    if index < WORKERS {
                        met.wait();
                    }
                    sample(index)
                }),
            );
            travel(&mut engine, &[indices(0..WORKERS), indices(WORKERS..20)]);
        }
    });
}

#[test]
fn whoever_hands_in_last_publishes_the_batch() {
    let mut engine = Engine::new(sharing(2, 1)).unwrap();
    let join = |worker| Worker::join(engine.seat(worker).unwrap()).unwrap();
    let [mut early, mut late] = [join(0), join(1)];
    engine.submit_rows(0, indices(0..2), 2).unwrap();
    let (Some(Order::Rows(first)), Some(Order::Rows(second))) =
        (early.try_next().unwrap(), late.try_next().unwrap())
    else {
        panic!("both begin the epoch's first batch")
    };
    assert_eq!(engine.awaited(), Some((0, 0)));
    assert!(early.hand_in(first, None).unwrap().is_none());
    assert_eq!(engine.awaited(), Some((1, 0)), "who is still at it");
    let complete = late.hand_in(second, None).unwrap().expect("it is the last");
    late.finish(complete.ticket, Outcome::Batch, &Value::None).unwrap();
    let batch = expect_batch(&mut engine);
    assert_eq!((batch.step, batch.worker), (0, 1));
}

#[test]
fn of_a_worker_that_ends_the_batch_is_known_that_it_owes_rows_of() {
    watched(|| {
        let at = Arc::new(Mutex::new(None));
        let noted = at.clone();
        let mut engine = crew(
            sharing(2, 2),
            Arc::new(move |worker, index| {
                if index == 9 {
                    *noted.lock().unwrap() = Some(worker);
                    panic!("this worker ends");
                }
                sample(index)
            }),
        );
        for batch in 0..4 {
            engine.submit_rows(0, indices(batch * 4..batch * 4 + 4), 4).unwrap();
        }
        let error = loop {
            match next(&mut engine) {
                Ok(Some(batch)) => assert!(batch.step < 2),
                Ok(None) => panic!("batch 2 cannot be finished"),
                Err(error) => break error,
            }
        };
        let EngineError::WorkerEnded { worker, in_flight, .. } = error else { panic!("{error}") };
        assert_eq!((Some(worker), in_flight), (*at.lock().unwrap(), vec![2]));
    });
}

#[test]
fn what_travels_between_workers_never_takes_the_room_of_a_batch() {
    watched(|| {
        // Two batches of nearly all that batches may have; the eighth for what travels is too little for a row.
        let config = EngineConfig::new(2, 1, true, Some(16 << 20)).unwrap().sharing_rows();
        let large = |index: u32| vec![index as u8; 3 << 20];
        let mut engine = crew(config, Arc::new(move |_, index| large(index)));
        for batch in 0..2 {
            engine.submit_rows(0, indices([2 * batch, 2 * batch + 1]), 2).unwrap();
        }
        for batch in 0..2 {
            let got = expect_batch(&mut engine);
            assert_eq!(got.outcome, Outcome::Batch, "{:?}", got.value);
            for (row, region) in got.regions.iter().enumerate() {
                assert!(region.bytes() == large(2 * batch + row as u32));
            }
        }
    });
}

#[test]
fn no_memory_is_left_when_the_workers_have_ended() {
    watched(|| {
        let met = Arc::new(std::sync::Barrier::new(2));
        let config = sharing(2, 2);
        let mut engine = Engine::new(config).unwrap();
        let seats: Vec<_> = (0..2).map(|worker| engine.seat(worker).unwrap()).collect();
        let workers: Vec<_> = seats
            .into_iter()
            .map(|seat| {
                let met = met.clone();
                let make = move |_, index| {
                    if index < 2 {
                        met.wait();
                    }
                    vec![index as u8; 40_000]
                };
                std::thread::spawn(move || serve(Worker::join(seat).unwrap(), &make))
            })
            .collect();
        engine.submit_rows(0, indices(0..2), 2).unwrap();
        let batch = expect_batch(&mut engine);
        assert!(engine.memory_bytes() > 2 * 40_000 + 40_000, "a batch, and what one made for the other");
        drop(batch);
        engine.stop();
        for worker in workers {
            worker.join().unwrap().unwrap();
        }
        engine.release().unwrap();
        assert_eq!(engine.memory_bytes(), 0);
    });
}

#[test]
fn rows_are_shared_only_where_that_helps() {
    let shares = |workers, prefetch_factor, in_order| {
        let config = EngineConfig::new(workers, prefetch_factor, in_order, None).unwrap();
        assert!(!config.shares_rows());
        config.sharing_rows().shares_rows()
    };
    assert!(shares(2, 1, true) && shares(64, 4, true));
    assert!(!shares(1, 2, true), "one worker");
    assert!(!shares(2, 2, false), "as they arrive");
    assert!(!shares(256, 2, true), "always enough to do");
}
