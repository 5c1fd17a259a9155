//! Limits of the operating system hold for the whole process, so this test has one of its own.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::thread;

use forebay::{BoxError, DataLoader, Dataset, Sample};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

mod common;
use common::watched;

struct Nothing;

impl Dataset for Nothing {
    type Sample = Sample;

    fn len(&self) -> usize {
        5
    }

    fn get(&self, _index: usize) -> Result<Sample, BoxError> {
        Ok(Sample::new())
    }
}

fn open_descriptors() -> u64 {
    std::fs::read_dir("/proc/self/fd").unwrap().count() as u64
}

#[test]
fn an_epoch_that_cannot_begin_is_one_error() {
    watched(without_descriptors);
}

fn without_descriptors() {
    let loader = DataLoader::builder(Nothing).num_workers(4).build().unwrap();
    let limit = getrlimit(Resource::Nofile);
    let open = open_descriptors();
    for left in 0..20 {
        setrlimit(Resource::Nofile, Rlimit { current: Some(open + left), ..limit }).unwrap();
        let items: Vec<_> = (&loader).into_iter().collect();
        let [Err(error)] = items.as_slice() else { panic!("{items:?}") };
        assert!(error.is_system() && error.to_string().contains("open files"), "{error}");
    }
    setrlimit(Resource::Nofile, limit).unwrap();
    assert_eq!((&loader).into_iter().map(Result::unwrap).count(), 5);
    // Threads of crews that were never complete end by themselves; then no descriptor is left over.
    while open_descriptors() > open {
        thread::yield_now();
    }
}
