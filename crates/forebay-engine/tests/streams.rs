//! Workers that read streams of their own, of any length: what one has left nobody else waits for.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::collections::VecDeque;

use common::{config, engine, out_of_order, watched};
use forebay_engine::layout::Value;
use forebay_engine::{Engine, EngineConfig, EngineError, Order, Outcome, Turn, Worker};
use proptest::prelude::*;

/// Worker `i` makes `lengths[i]` batches in every epoch, each of which says who made it and which of his it is.
fn readers(config: EngineConfig, lengths: Vec<u64>) -> Engine {
    engine(config, move |worker| read(worker, &lengths))
}

fn read(mut worker: Worker, lengths: &[u64]) -> Result<(), EngineError> {
    let (mut epoch, mut made) = (0, 0);
    loop {
        match worker.next_order()? {
            None | Some(Order::Rows(_)) => {}
            Some(Order::Stop) => return Ok(()),
            Some(Order::Fill(ticket)) => {
                if ticket.epoch != epoch {
                    (epoch, made) = (ticket.epoch, 0);
                }
                let (outcome, value) = if made == lengths[worker.id() as usize] {
                    (Outcome::End, Value::None)
                } else {
                    made += 1;
                    (Outcome::Batch, Value::Int(i64::from(worker.id()) << 32 | (made - 1) as i64))
                };
                worker.finish(ticket, outcome, &value).map_err(|unpublished| unpublished.error)?;
            }
        }
    }
}

/// One epoch: (worker, number) of every batch, as delivered.
fn epoch(engine: &mut Engine) -> Vec<(u32, u64)> {
    let mut delivered = Vec::new();
    loop {
        while engine.wants() {
            engine.submit(0, Vec::new()).unwrap();
        }
        match engine.turn().unwrap() {
            Turn::Batch(batch) => {
                let Value::Int(value) = batch.value else { panic!("{:?}", batch.value) };
                delivered.push(((value >> 32) as u32, value as u64 & 0xFFFF_FFFF));
            }
            Turn::Pending => drop(engine.wait(None).unwrap()),
            Turn::StreamEnded => {}
            // Batches of an epoch that was left may have taken all room until now.
            Turn::Idle if engine.wants() => {}
            Turn::Idle => return delivered,
        }
    }
}

/// What in-order delivery has to be: the workers take turns, and those that have nothing left are passed over.
fn taking_turns(lengths: &[u64]) -> Vec<(u32, u64)> {
    let mut circle: VecDeque<_> = (0..lengths.len()).map(|worker| (worker, 0)).collect();
    let mut order = Vec::new();
    while let Some((worker, made)) = circle.pop_front() {
        if made < lengths[worker] {
            order.push((worker as u32, made));
            circle.push_back((worker, made + 1));
        }
    }
    order
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn in_order_streams_take_turns_and_every_epoch_is_the_same(
        lengths in prop::collection::vec(0..9u64, 1..5),
        prefetch_factor in 1..4u32,
    ) {
        watched(move || {
            let expected = taking_turns(&lengths);
            let mut engine = readers(config(lengths.len() as u32, prefetch_factor), lengths);
            for _ in 0..3 {
                assert_eq!(epoch(&mut engine), expected);
                engine.restart(0).unwrap();
            }
        });
    }

    #[test]
    fn out_of_order_every_stream_arrives_whole_and_in_its_own_order(
        lengths in prop::collection::vec(0..9u64, 1..5),
        prefetch_factor in 1..4u32,
    ) {
        watched(move || {
            let mut engine = readers(out_of_order(lengths.len() as u32, prefetch_factor), lengths.clone());
            for _ in 0..2 {
                let delivered = epoch(&mut engine);
                for (worker, length) in lengths.iter().enumerate() {
                    let of_worker = delivered.iter().filter(|(who, _)| *who as usize == worker);
                    let numbers: Vec<_> = of_worker.map(|(_, number)| *number).collect();
                    assert_eq!(numbers, (0..*length).collect::<Vec<_>>());
                }
                engine.restart(0).unwrap();
            }
        });
    }
}

#[test]
fn nothing_is_wanted_when_all_streams_are_over() {
    watched(|| {
        let mut engine = readers(config(2, 2), vec![1, 0]);
        assert_eq!(epoch(&mut engine), [(0, 0)]);
        assert!(!engine.wants());
        engine.restart(0).unwrap();
        assert!(engine.wants());
    });
}

#[test]
fn the_end_of_a_stream_in_an_epoch_that_was_left_does_not_count_in_the_next() {
    watched(|| {
        let mut engine = readers(config(2, 2), vec![2, 0]);
        while engine.wants() {
            engine.submit(0, Vec::new()).unwrap();
        }
        engine.restart(0).unwrap();
        assert_eq!(epoch(&mut engine), [(0, 0), (0, 1)]);
    });
}
