//! The journey with threads as the crew: order, values, errors and ends.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};

use common::{
    Gate, Recipe, assert_cooked, config, cook, engine, expect_batch, fill, finish, kitchen, next,
    out_of_order, serve, travel, watched,
};
use forebay_engine::layout::Value;
use forebay_engine::{Engine, EngineConfig, EngineError, Order, Outcome, Turn, Worker, WorkerEnd};
use proptest::prelude::*;

/// Two workers; worker 0 finishes its first batch only when the gate is open. Tells which steps were finished.
fn worker_0_behind_a_gate(config: EngineConfig, gate: &Gate, finished: Sender<u64>) -> Engine {
    let gate = gate.clone();
    engine(config, move |mut worker| {
        while let Some(order) = worker.next_order()? {
            let Order::Fill(mut ticket) = order else { break };
            if worker.id() == 0 {
                gate.pass();
            }
            let (step, made) = (ticket.step, cook(&mut ticket));
            finish(&mut worker, ticket, made)?;
            finished.send(step).unwrap();
        }
        Ok(())
    })
}

fn small() -> Recipe {
    Recipe(vec![100])
}

#[test]
fn a_batch_that_is_finished_early_waits_for_those_before_it() {
    watched(|| {
        let (gate, (sender, finished)) = (Gate::default(), channel());
        let mut engine = worker_0_behind_a_gate(config(2, 2), &gate, sender);
        for _ in 0..4 {
            engine.submit(0, small().to_indices()).unwrap();
        }
        assert_eq!([finished.recv().unwrap(), finished.recv().unwrap()], [1, 3]);
        assert!(matches!(engine.turn(), Ok(Turn::Pending)), "batch 0 is not there");
        gate.open();
        let steps: Vec<_> = (0..4).map(|_| expect_batch(&mut engine).step).collect();
        assert_eq!(steps, [0, 1, 2, 3]);
    });
}

#[test]
fn out_of_order_batches_are_delivered_as_they_arrive() {
    watched(|| {
        let (gate, (sender, finished)) = (Gate::default(), channel());
        let mut engine = worker_0_behind_a_gate(out_of_order(2, 2), &gate, sender);
        for _ in 0..4 {
            engine.submit(0, small().to_indices()).unwrap();
        }
        assert_eq!([finished.recv().unwrap(), finished.recv().unwrap()], [1, 3]);
        assert_eq!([expect_batch(&mut engine).step, expect_batch(&mut engine).step], [1, 3]);
        gate.open();
        assert_eq!([expect_batch(&mut engine).step, expect_batch(&mut engine).step], [0, 2]);
    });
}

#[test]
fn out_of_order_a_fast_worker_gets_the_work_of_a_slow_one() {
    watched(|| {
        let (gate, (sender, _finished)) = (Gate::default(), channel());
        let mut engine = worker_0_behind_a_gate(out_of_order(2, 2), &gate, sender);
        for _ in 0..2 {
            engine.submit(0, small().to_indices()).unwrap();
        }
        assert_eq!(expect_batch(&mut engine).worker, 1);
        engine.submit(0, small().to_indices()).unwrap();
        for _ in 0..10 {
            // Worker 0 has its two batches and cannot finish them.
            engine.submit(0, small().to_indices()).unwrap();
            assert_eq!(expect_batch(&mut engine).worker, 1);
        }
        gate.open();
    });
}

#[test]
fn in_order_batch_i_is_made_by_worker_i_mod_n() {
    watched(|| {
        let mut makers = Vec::new();
        let mut engine = kitchen(config(3, 2));
        travel(&mut engine, &vec![small(); 20], |_, batch| makers.push((batch.step, batch.worker)));
        let expected: Vec<_> = (0..20).map(|step| (step, step as u32 % 3)).collect();
        assert_eq!(makers, expected);
    });
}

#[test]
fn a_restart_begins_again_at_worker_0_and_drops_what_was_not_delivered() {
    watched(|| {
        let (gate, (sender, finished)) = (Gate::default(), channel());
        let mut engine = worker_0_behind_a_gate(config(2, 2), &gate, sender);
        for _ in 0..3 {
            engine.submit(0, small().to_indices()).unwrap();
        }
        // One batch has arrived, two are in flight.
        assert_eq!(finished.recv().unwrap(), 1);
        assert!(matches!(engine.turn(), Ok(Turn::Pending)));
        engine.restart(0).unwrap();
        gate.open();
        let other = Recipe(vec![200]);
        engine.submit(0, other.to_indices()).unwrap();
        let batch = expect_batch(&mut engine);
        assert_eq!((batch.step, batch.worker), (3, 0));
        assert_cooked(&batch, &other);
        assert!(next(&mut engine).unwrap().is_none());
    });
}

#[test]
fn an_epoch_that_goes_on_in_its_middle_begins_with_the_worker_it_is_told() {
    watched(|| {
        let mut engine = kitchen(config(3, 2));
        let makers = |engine: &mut Engine| -> Vec<u32> {
            for _ in 0..4 {
                engine.submit(0, small().to_indices()).unwrap();
            }
            (0..4).map(|_| expect_batch(engine).worker).collect()
        };
        engine.restart(2).unwrap();
        assert_eq!(makers(&mut engine), [2, 0, 1, 2]);
        engine.restart(0).unwrap();
        assert_eq!(makers(&mut engine), [0, 1, 2, 0]);
    });
}

#[test]
fn batches_of_the_last_epoch_that_are_still_being_made_count_for_the_window() {
    watched(|| {
        let (gate, (sender, _finished)) = (Gate::default(), channel());
        let mut engine = worker_0_behind_a_gate(config(1, 2), &gate, sender);
        for _ in 0..2 {
            engine.submit(0, small().to_indices()).unwrap();
        }
        engine.restart(0).unwrap();
        assert!(!engine.wants());
        assert!(matches!(engine.turn(), Ok(Turn::Pending)));
        gate.open();
        assert!(next(&mut engine).unwrap().is_none(), "they are dropped as they come in");
        assert!(engine.wants());
    });
}

#[test]
fn every_epoch_delivers_its_own_batches_however_far_the_last_one_got() {
    watched(|| {
        let mut engine = kitchen(config(3, 2));
        let mut first = 0;
        for delivered in 0..12 {
            let recipe = Recipe(vec![delivered + 1]);
            let mut submitted = 0;
            for _ in 0..delivered {
                let batch = loop {
                    while engine.wants() {
                        engine.submit(0, recipe.to_indices()).unwrap();
                        submitted += 1;
                    }
                    match engine.turn().unwrap() {
                        Turn::Batch(batch) => break batch,
                        _ => engine.wait(None).unwrap(),
                    };
                };
                assert_cooked(&batch, &recipe);
                assert_eq!(batch.worker, ((batch.step - first) % 3) as u32);
            }
            engine.restart(0).unwrap();
            first += submitted;
        }
    });
}

#[test]
fn never_more_than_window_batches_are_out() {
    watched(|| {
        let mut engine = kitchen(config(2, 3));
        assert_eq!(engine.config().window(), 6);
        for _ in 0..6 {
            assert!(engine.wants());
            engine.submit(0, small().to_indices()).unwrap();
        }
        assert!(!engine.wants());
        assert!(matches!(engine.submit(0, small().to_indices()), Err(EngineError::Config(_))));
        expect_batch(&mut engine);
        assert!(engine.wants());
        assert_eq!(engine.submit(0, small().to_indices()).unwrap(), 6);
    });
}

#[test]
fn a_worker_sees_the_indices_and_their_format_as_they_were_sent() {
    watched(|| {
        let echo = |worker: Worker| {
            serve(worker, |ticket| {
                Ok(Value::Tuple(vec![Value::Int(ticket.format.into()), Value::Bytes(ticket.indices.clone())]))
            })
        };
        let mut engine = engine(config(1, 1), echo);
        for (format, len) in [(0, 0), (7, 1), (u32::MAX, 100_000)] {
            let indices: Vec<u8> = (0..len).map(|place| place as u8).collect();
            let step = engine.submit(format, indices.clone()).unwrap();
            assert_eq!(engine.indices(step), Some((format, indices.as_slice())));
            let value = expect_batch(&mut engine).value;
            assert_eq!(value, Value::Tuple(vec![Value::Int(format.into()), Value::Bytes(indices)]));
            assert_eq!(engine.indices(step), None);
        }
    });
}

#[test]
fn indices_without_memory_are_an_error_after_which_the_journey_goes_on_as_if_they_had_not_been_sent() {
    watched(|| {
        let mut engine = kitchen(EngineConfig::new(2, 1, true, Some(8 << 20)).unwrap());
        for _ in 0..5001 {
            let error = engine.submit(0, vec![0; 9 << 20]).unwrap_err();
            assert!(matches!(error, EngineError::Shm(_)), "{error}");
        }
        for step in 0..4 {
            assert_eq!(engine.submit(0, small().to_indices()).unwrap(), step);
            let batch = expect_batch(&mut engine);
            assert_eq!((batch.step, batch.worker), (step, step as u32 % 2));
            assert_cooked(&batch, &small());
        }
    });
}

#[test]
fn the_error_of_a_batch_arrives_in_its_place_and_the_journey_goes_on() {
    watched(|| {
        let fails =
            |worker: Worker| {
                serve(worker, |ticket| {
                    if ticket.step % 3 == 1 { Err(EngineError::Layout("burnt")) } else { cook(ticket) }
                })
            };
        let mut outcomes = Vec::new();
        let mut engine = engine(config(2, 2), fails);
        travel(&mut engine, &vec![small(); 9], |_, batch| {
            match &batch.value {
                Value::Text(text) => assert!(text.contains("burnt")),
                _ => assert_cooked(&batch, &small()),
            }
            outcomes.push(batch.outcome);
        });
        use Outcome::{Batch as B, Error as E};
        assert_eq!(outcomes, [B, E, B, B, E, B, B, E, B]);
    });
}

#[test]
fn a_batch_over_the_budget_is_an_error_with_numbers_in_its_place() {
    watched(|| {
        let mut engine = kitchen(EngineConfig::new(1, 2, true, Some(4 << 20)).unwrap());
        let recipes = [small(), Recipe(vec![1 << 20, 5 << 20]), small()];
        let mut texts = Vec::new();
        travel(&mut engine, &recipes, |_, batch| match batch.value {
            Value::Text(text) => texts.push((batch.step, text)),
            _ => assert_cooked(&batch, &small()),
        });
        let [(1, text)] = texts.as_slice() else { panic!("{texts:?}") };
        for number in [6 << 20, 4 << 20] {
            assert!(text.contains(&number.to_string()), "{number} in: {text}");
        }
    });
}

#[test]
fn batches_in_flight_share_the_budget() {
    watched(|| {
        // The first batch is begun when the second one is written, and one of 3 MiB leaves no room for another.
        let (gate, opener) = (Gate::default(), Gate::default());
        let (pass, open) = (gate.clone(), opener.clone());
        let mut engine = engine(EngineConfig::new(2, 1, true, Some(4 << 20)).unwrap(), move |worker| {
            let (pass, open, id) = (pass.clone(), open.clone(), worker.id());
            serve(worker, move |ticket| {
                if id == 0 {
                    pass.pass();
                }
                let made = cook(ticket);
                open.open();
                made
            })
        });
        for _ in 0..2 {
            engine.submit(0, Recipe(vec![3 << 20]).to_indices()).unwrap();
        }
        opener.pass();
        gate.open();
        let batches = [expect_batch(&mut engine), expect_batch(&mut engine)];
        assert_eq!(batches.each_ref().map(|batch| batch.outcome), [Outcome::Error, Outcome::Batch]);
        let Value::Text(text) = &batches[0].value else { panic!("{batches:?}") };
        assert!(text.contains("raise memory_budget"), "{text}");
    });
}

#[test]
fn a_worker_that_panics_is_an_error_with_its_last_words_after_what_it_had_finished() {
    watched(|| {
        let gate = Gate::default();
        let pass = gate.clone();
        let mut engine = engine(config(2, 3), move |worker| {
            let pass = pass.clone();
            serve(worker, move |ticket| {
                if ticket.step == 2 {
                    pass.pass();
                    panic!("no more eggs");
                }
                cook(ticket)
            })
        });
        for _ in 0..6 {
            engine.submit(0, small().to_indices()).unwrap();
        }
        for step in 0..2 {
            assert_eq!(expect_batch(&mut engine).step, step);
        }
        gate.open();
        let error = next(&mut engine).unwrap_err();
        let EngineError::WorkerEnded { worker: 0, in_flight, end: WorkerEnd::Thread(words) } = error else {
            panic!("{error}");
        };
        assert_eq!(in_flight, [2, 4]);
        assert!(words.contains("panicked") && words.contains("no more eggs"), "{words}");
    });
}

#[test]
fn a_worker_that_returns_an_error_is_reported_with_it() {
    watched(|| {
        let mut engine = engine(config(1, 1), |mut worker| {
            while worker.next_order()?.is_none() {}
            Err(EngineError::Layout("the pan is lost"))
        });
        engine.submit(0, small().to_indices()).unwrap();
        let error = next(&mut engine).unwrap_err().to_string();
        assert!(
            error.contains("worker 0") && error.contains("1 batches") && error.contains("the pan is lost"),
            "{error}"
        );
    });
}

#[test]
fn the_end_of_a_worker_hides_no_batch_that_it_finished() {
    watched(|| {
        for _ in 0..200 {
            let mut engine = engine(config(1, 3), |mut worker| {
                for _ in 0..3 {
                    let Some(Order::Fill(mut ticket)) = worker.next_order()? else {
                        panic!("three batches were sent")
                    };
                    let made = cook(&mut ticket);
                    finish(&mut worker, ticket, made)?;
                }
                Ok(())
            });
            for _ in 0..3 {
                engine.submit(0, small().to_indices()).unwrap();
            }
            for step in 0..3 {
                assert_eq!(expect_batch(&mut engine).step, step);
            }
        }
    });
}

#[test]
fn a_worker_that_is_told_to_stop_makes_the_batch_it_is_at_and_begins_no_other() {
    watched(|| {
        let (begun, end) = (Gate::default(), Gate::default());
        let made = Arc::new(Mutex::new(Vec::new()));
        let (has_begun, may_end, log) = (begun.clone(), end.clone(), made.clone());
        let mut engine = engine(config(1, 4), move |worker| {
            let (has_begun, may_end, log) = (has_begun.clone(), may_end.clone(), log.clone());
            serve(worker, move |ticket| {
                has_begun.open();
                may_end.pass();
                log.lock().unwrap().push(ticket.step);
                cook(ticket)
            })
        });
        for _ in 0..4 {
            engine.submit(0, small().to_indices()).unwrap();
        }
        begun.pass();
        engine.stop();
        end.open();
        drop(engine);
        let made = Arc::try_unwrap(made).expect("the worker and its closure are gone").into_inner().unwrap();
        assert_eq!(made, [0]);
    });
}

#[test]
fn dropping_the_engine_wakes_and_ends_workers_that_sleep() {
    watched(|| {
        for _ in 0..300 {
            drop(kitchen(config(3, 1)));
        }
    });
}

#[test]
fn a_deadline_that_has_passed_ends_the_wait() {
    watched(|| {
        let (gate, (sender, _finished)) = (Gate::default(), channel());
        let mut engine = worker_0_behind_a_gate(config(1, 1), &gate, sender);
        engine.submit(0, small().to_indices()).unwrap();
        let woken = engine.wait(Some(std::time::Instant::now())).unwrap();
        assert_eq!(woken, forebay_shm::sys::Woken::TimedOut);
        gate.open();
        assert_cooked(&expect_batch(&mut engine), &small());
    });
}

#[test]
fn no_wake_up_is_lost_in_many_short_trips() {
    watched(|| {
        // With one batch ahead, trainer and worker sleep and wake each other for every batch.
        let mut engine = kitchen(config(1, 1));
        travel(&mut engine, &vec![Recipe(vec![8]); 20_000], |_, batch| {
            assert_eq!(batch.outcome, Outcome::Batch)
        });
    });
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_its_value() {
    for (workers, prefetch_factor, budget, value) in
        [(0, 2, None, "0 * 2"), (2, 0, None, "2 * 0"), (1, 2, Some(5), "5")]
    {
        let error = EngineConfig::new(workers, prefetch_factor, true, budget).unwrap_err().to_string();
        assert!(error.contains(value), "{error}");
    }
    assert!(EngineConfig::new(u32::MAX, u32::MAX, true, None).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn bytes_arrive_unchanged_for_any_arrays_that_change_from_batch_to_batch(
        recipes in prop::collection::vec(
            prop::collection::vec(prop_oneof![4 => 0u32..200, 3 => 0u32..20_000, 1 => 0u32..3_000_000], 0..6)
                .prop_map(Recipe),
            1..24,
        ),
        workers in 1u32..4,
        prefetch_factor in 1u32..4,
        in_order: bool,
    ) {
        watched(move || {
            let config = EngineConfig::new(workers, prefetch_factor, in_order, Some(512 << 20)).unwrap();
            let mut steps = Vec::new();
            let mut engine = kitchen(config);
            travel(&mut engine, &recipes, |_, batch| {
                assert_cooked(&batch, &recipes[batch.step as usize]);
                steps.push(batch.step);
            });
            if !in_order {
                steps.sort_unstable();
            }
            assert_eq!(steps, (0..recipes.len() as u64).collect::<Vec<_>>());
        });
    }

    #[test]
    fn batches_come_in_submission_order_whichever_worker_finishes_first(
        order in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        watched(move || {
            let gates: Vec<Gate> = (0..8).map(|_| Gate::default()).collect();
            let passes = gates.clone();
            let mut engine = engine(config(8, 1), move |worker| {
                let passes = passes.clone();
                serve(worker, move |ticket| {
                    passes[ticket.step as usize].pass();
                    cook(ticket)
                })
            });
            for _ in 0..8 {
                engine.submit(0, small().to_indices()).unwrap();
            }
            order.iter().for_each(|step| gates[*step].open());
            let steps: Vec<_> = (0..8).map(|_| expect_batch(&mut engine).step).collect();
            assert_eq!(steps, (0..8).collect::<Vec<_>>());
        });
    }
}

#[test]
fn the_recipe_makes_other_bytes_for_every_batch_and_array() {
    let bytes = |step, place| {
        let mut bytes = [0; 32];
        fill(step, place, &mut bytes);
        bytes
    };
    assert_ne!(bytes(0, 0), bytes(1, 0));
    assert_ne!(bytes(0, 0), bytes(0, 1));
}
