//! Slots: who keeps them, when they come back, and what happens when they run out.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::sync::mpsc::channel;
use std::thread;
use std::time::Instant;

use common::{
    Recipe, assert_cooked, assert_right_bytes, config, cook, engine, expect_batch, finish, kitchen, next,
    serve, travel, watched,
};
use forebay_engine::config::SMALL_ARRAY_BYTES;
use forebay_engine::{Batch, Engine, EngineConfig, Order, Worker};

const MEBIBYTE: u32 = 1 << 20;
const SMALL: u32 = SMALL_ARRAY_BYTES as u32;

fn budget(workers: u32, prefetch_factor: u32, mebibytes: u64) -> EngineConfig {
    EngineConfig::new(workers, prefetch_factor, true, Some(mebibytes << 20)).unwrap()
}

/// Every batch of the journey, kept.
fn keep_all(engine: &mut Engine, recipes: &[Recipe]) -> Vec<Batch> {
    let mut kept = Vec::new();
    travel(engine, recipes, |_, batch| kept.push(batch));
    kept
}

#[test]
fn a_kept_batch_is_never_overwritten_whatever_is_kept() {
    watched(|| {
        let mut engine = kitchen(budget(2, 2, 16));
        let recipe = Recipe(vec![MEBIBYTE, 100]);
        let kept = keep_all(&mut engine, &vec![recipe.clone(); 100]);
        kept.iter().for_each(|batch| assert_cooked(batch, &recipe));
    });
}

#[test]
fn when_kept_batches_use_the_budget_up_the_rest_are_delivered_as_copies() {
    watched(|| {
        let mut engine = kitchen(budget(2, 2, 16));
        let kept = keep_all(&mut engine, &vec![Recipe(vec![MEBIBYTE]); 40]);
        let first_copy = kept.iter().position(|batch| batch.copied).expect("16 MiB do not hold 40 batches");
        // What is not kept has to hold the window's batches and the one being copied.
        assert!((8..=12).contains(&first_copy), "{first_copy}");
        for (place, batch) in kept.iter().enumerate() {
            assert_eq!(batch.copied, place >= first_copy);
            assert_eq!(batch.regions[0].is_leased(), !batch.copied);
        }
        assert!(engine.memory_bytes() <= 16 << 20);
    });
}

#[test]
fn batches_are_delivered_in_their_slots_again_once_the_kept_ones_are_dropped() {
    watched(|| {
        let mut engine = kitchen(budget(2, 2, 16));
        let recipes = vec![Recipe(vec![MEBIBYTE]); 20];
        for _ in 0..3 {
            let kept = keep_all(&mut engine, &recipes);
            assert!(!kept[0].copied && kept[19].copied);
        }
    });
}

#[test]
fn what_is_kept_never_makes_a_larger_batch_an_error() {
    watched(|| {
        let mut engine = kitchen(budget(1, 2, 16));
        let recipes = [vec![Recipe(vec![MEBIBYTE]); 20], vec![Recipe(vec![7 * MEBIBYTE]); 4]].concat();
        let kept = keep_all(&mut engine, &recipes);
        kept.iter().zip(&recipes).for_each(|(batch, recipe)| assert_cooked(batch, recipe));
    });
}

#[test]
fn a_program_may_keep_more_batches_than_there_are_slots() {
    watched(|| {
        let mut engine = kitchen(budget(2, 2, 256));
        let recipe = Recipe(vec![2 * SMALL]);
        let kept = keep_all(&mut engine, &vec![recipe.clone(); 5000]);
        assert!(!kept[0].copied && kept[4999].copied);
        kept.iter().for_each(|batch| assert_cooked(batch, &recipe));
    });
}

#[test]
fn slots_are_used_again_when_batches_are_dropped() {
    watched(|| {
        let mut engine = kitchen(config(2, 2));
        let recipes = [vec![Recipe(vec![5000]); 10_000], vec![Recipe(vec![2 * MEBIBYTE]); 200]].concat();
        let window = u64::from(engine.config().window());
        travel(&mut engine, &recipes, |engine, batch| {
            // One slot for each batch ahead, one for the batch in hand, one for the batch before.
            let slot_bytes = if batch.step < 9_000 { 16 << 10 } else { (2 << 20) + 4096 };
            assert!(engine.memory_bytes() <= (window + 2) * slot_bytes, "{} bytes", engine.memory_bytes());
        });
    });
}

#[test]
fn memory_that_many_kept_batches_took_is_given_back_when_they_are_dropped() {
    watched(|| {
        let mut engine = kitchen(config(1, 2));
        let recipes = vec![Recipe(vec![MEBIBYTE]); 100];
        let kept = keep_all(&mut engine, &recipes);
        assert!(engine.memory_bytes() > 100 << 20);
        drop(kept);
        travel(&mut engine, &recipes[..3], |_, batch| assert_right_bytes(&batch));
        assert!(engine.memory_bytes() < 8 << 20, "{} bytes", engine.memory_bytes());
        // What was given back is memory again when it is needed.
        let kept = keep_all(&mut engine, &recipes);
        kept.iter().for_each(|batch| assert_cooked(batch, &recipes[0]));
    });
}

#[test]
fn a_small_array_does_not_keep_the_slot() {
    watched(|| {
        let mut engine = kitchen(budget(1, 2, 16));
        let recipe = Recipe(vec![SMALL, MEBIBYTE]);
        let mut labels = Vec::new();
        travel(&mut engine, &vec![recipe; 100], |_, mut batch| {
            assert!(!batch.copied);
            assert_eq!([batch.regions[0].is_leased(), batch.regions[1].is_leased()], [false, true]);
            batch.regions.truncate(1);
            labels.push(batch);
        });
        labels.iter().for_each(assert_right_bytes);
    });
}

#[test]
fn an_array_one_byte_larger_than_small_is_not_copied() {
    watched(|| {
        let mut engine = kitchen(config(1, 1));
        let kept = keep_all(&mut engine, &[Recipe(vec![SMALL + 1])]);
        assert!(kept[0].regions[0].is_leased());
    });
}

#[test]
fn a_slot_comes_back_only_with_its_last_large_array() {
    watched(|| {
        let mut engine = kitchen(budget(2, 2, 24));
        let mut halves = Vec::new();
        travel(&mut engine, &vec![Recipe(vec![MEBIBYTE, MEBIBYTE]); 40], |_, mut batch| {
            batch.regions.truncate(1);
            halves.push(batch);
        });
        halves.iter().for_each(assert_right_bytes);
    });
}

#[test]
fn a_change_to_one_array_is_seen_in_no_other() {
    watched(|| {
        let mut engine = kitchen(config(1, 2));
        let recipe = Recipe(vec![5000, 10, 5000, 63, 64, 65]);
        travel(&mut engine, &vec![recipe.clone(); 10], |_, mut batch| {
            for place in 0..recipe.0.len() {
                assert_cooked(&batch, &recipe);
                let before = batch.regions[place].bytes().to_vec();
                batch.regions[place].bytes_mut().fill(0xAA);
                let mut changed = batch.regions.iter().enumerate().filter(|(other, _)| *other != place);
                assert!(changed.all(|(_, region)| region.bytes().iter().any(|byte| *byte != 0xAA)));
                batch.regions[place].bytes_mut().copy_from_slice(&before);
            }
        });
    });
}

#[test]
fn arrays_begin_on_a_cache_line_in_the_slot_or_copied() {
    watched(|| {
        let mut engine = kitchen(config(1, 2));
        travel(&mut engine, &vec![Recipe(vec![5000, 1, 0, 5001, 4096]); 4], |_, batch| {
            for region in &batch.regions {
                assert_eq!(region.pointer().as_ptr() as usize % forebay_shm::ALIGNMENT_BYTES, 0);
            }
        });
    });
}

#[test]
fn a_batch_outlives_its_engine_and_its_crew() {
    watched(|| {
        let recipe = Recipe(vec![MEBIBYTE, 100, 5000]);
        let mut engine = kitchen(config(2, 2));
        let mut kept = keep_all(&mut engine, &vec![recipe.clone(); 10]);
        drop(engine);
        kept.iter().for_each(|batch| assert_cooked(batch, &recipe));
        for region in kept.iter_mut().flat_map(|batch| &mut batch.regions) {
            region.bytes_mut().fill(1);
            assert!(region.bytes().iter().all(|byte| *byte == 1));
        }
    });
}

#[test]
fn batches_may_be_dropped_on_any_thread() {
    watched(|| {
        let recipe = Recipe(vec![MEBIBYTE]);
        let (sender, batches) = channel::<Batch>();
        let checked = recipe.clone();
        let elsewhere =
            thread::spawn(move || batches.iter().for_each(|batch| assert_cooked(&batch, &checked)));
        let mut engine = kitchen(budget(2, 2, 16));
        travel(&mut engine, &vec![recipe; 200], |_, batch| sender.send(batch).unwrap());
        drop(sender);
        elsewhere.join().unwrap();
    });
}

#[test]
fn a_restart_gives_the_slots_of_dropped_batches_back() {
    watched(|| {
        let (sender, finished) = channel();
        let mut engine = engine(budget(2, 2, 16), move |mut worker| {
            loop {
                match worker.next_order()? {
                    None | Some(Order::Rows(_)) => {}
                    Some(Order::Stop) => return Ok(()),
                    Some(Order::Fill(mut ticket)) => {
                        let made = cook(&mut ticket);
                        finish(&mut worker, ticket, made)?;
                        sender.send(()).unwrap();
                    }
                }
            }
        });
        let recipe = Recipe(vec![2 * MEBIBYTE]);
        for arrived in [4, 4, 4, 0, 0, 0, 2, 3, 1] {
            while engine.wants() {
                engine.submit(0, recipe.to_indices()).unwrap();
            }
            (0..arrived).for_each(|_| finished.recv().unwrap());
            engine.wait(Some(Instant::now())).unwrap();
            engine.restart(0).unwrap();
            while next(&mut engine).unwrap().is_some() {}
            finished.try_iter().for_each(drop);
        }
        engine.submit(0, recipe.to_indices()).unwrap();
        assert_cooked(&expect_batch(&mut engine), &recipe);
        assert!(engine.memory_bytes() <= 14 << 20, "{} bytes", engine.memory_bytes());
    });
}

#[test]
fn when_all_workers_have_ended_all_memory_is_given_back_but_that_of_kept_batches() {
    watched(|| {
        let mut engine = Engine::new(config(2, 2)).unwrap();
        let recipe = Recipe(vec![MEBIBYTE]);
        let seats = [engine.seat(0).unwrap(), engine.seat(1).unwrap()];
        let threads = seats.map(|seat| thread::spawn(|| serve(Worker::join(seat)?, cook)));
        let mut kept = Vec::new();
        travel(&mut engine, &vec![recipe.clone(); 10], |_, batch| {
            if batch.step == 3 {
                kept.push(batch);
            }
        });
        // One is finished and not delivered, one may not even be finished.
        engine.submit(0, recipe.to_indices()).unwrap();
        engine.wait(None).unwrap();
        engine.submit(0, recipe.to_indices()).unwrap();
        engine.stop();
        threads.into_iter().for_each(|thread| thread.join().unwrap().unwrap());
        engine.release().unwrap();
        assert!((1 << 20..2 << 20).contains(&engine.memory_bytes()), "{} bytes", engine.memory_bytes());
        assert_cooked(&kept[0], &recipe);
    });
}

#[test]
fn a_budget_larger_than_any_memory_is_none_at_all() {
    watched(|| {
        let config = EngineConfig::new(1, 1, true, Some(u64::MAX)).unwrap();
        travel(&mut kitchen(config), &[Recipe(vec![MEBIBYTE])], |_, batch| assert!(!batch.copied));
    });
}

#[test]
fn idle_slots_do_not_use_up_the_budget_of_a_larger_batch() {
    watched(|| {
        // Four batches of 3 MiB are kept for a while: then their slots lie idle with 12 MiB of the 20.
        let mut engine = kitchen(budget(1, 2, 20));
        let medium = Recipe(vec![3 * MEBIBYTE]);
        let kept = keep_all(&mut engine, &vec![medium.clone(); 4]);
        drop(kept);
        let large = Recipe(vec![12 * MEBIBYTE]);
        travel(&mut engine, &[medium, large.clone()], |_, batch| {
            assert_right_bytes(&batch);
            if batch.step == 5 {
                assert_cooked(&batch, &large);
            }
        });
    });
}
