//! Descriptors are counted for the whole process, so this test has a process of its own.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use common::{Recipe, assert_right_bytes, config, kitchen, travel, watched};

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn descriptors_do_not_grow_with_batches_delivered_or_kept() {
    watched(|| {
        let at_first = open_descriptors();
        let recipes: Vec<_> = (0..5000).map(|step| Recipe(vec![step * 7 % 20_000, 5000])).collect();
        let mut kept = Vec::new();
        let mut engine = kitchen(config(3, 2));
        let with_an_engine = open_descriptors();
        travel(&mut engine, &recipes, |_, batch| {
            if batch.step % 3 == 0 {
                kept.push(batch);
            }
        });
        assert_eq!(open_descriptors(), with_an_engine);
        drop(engine);
        assert_eq!(open_descriptors(), at_first);
        kept.iter().for_each(assert_right_bytes);
    });
}
