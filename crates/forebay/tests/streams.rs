//! What a loader promises of datasets that are streams: PyTorch's rules.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::sync::{Arc, Mutex};

use forebay::{BoxError, Builder, DataLoader, Error, IterableDataset, Sample, Stream, Streamed, WorkerInfo};

mod common;
use common::watched;

/// The numbers below `len`, shared out among the workers; `special` may replace one.
struct Shares {
    len: i64,
    special: fn(i64) -> Result<i64, BoxError>,
    begun: Arc<Mutex<Vec<WorkerInfo>>>,
}

impl IterableDataset for Shares {
    type Sample = Sample;

    fn iter<'a>(&'a self, info: &WorkerInfo) -> Result<Stream<'a, Sample>, BoxError> {
        self.begun.lock().unwrap().push(*info);
        let share = (0..self.len).skip(info.id).step_by(info.num_workers);
        Ok(Box::new(share.map(|number| Ok(Sample::new().with("number", (self.special)(number)?)))))
    }
}

fn shares(len: i64) -> Builder<Streamed<Shares>> {
    DataLoader::streaming(Shares { len, special: Ok, begun: Arc::default() })
}

fn numbers(batch: Result<forebay::Batch, Error>) -> Vec<i64> {
    batch.unwrap().array::<i64>("number").unwrap().as_slice().to_vec()
}

fn epoch(loader: &DataLoader) -> Vec<Vec<i64>> {
    loader.into_iter().map(numbers).collect()
}

#[test]
fn a_batch_is_of_one_worker_and_the_workers_take_turns() {
    watched(|| {
        let loader = shares(10).batch_size(2).num_workers(2).build().unwrap();
        assert_eq!(epoch(&loader), [vec![0, 2], vec![1, 3], vec![4, 6], vec![5, 7], vec![8], vec![9]]);
    });
}

#[test]
fn a_worker_whose_stream_is_over_leaves_the_circle() {
    watched(|| {
        struct Uneven;
        impl IterableDataset for Uneven {
            type Sample = Sample;
            fn iter<'a>(&'a self, info: &WorkerInfo) -> Result<Stream<'a, Sample>, BoxError> {
                let (id, len) = (info.id as i64, [1, 5, 0][info.id]);
                Ok(Box::new((0..len).map(move |number| Ok(Sample::new().with("number", id * 10 + number)))))
            }
        }
        for prefetch in [1, 2, 5] {
            let builder = DataLoader::streaming(Uneven).num_workers(3).prefetch_factor(prefetch);
            for persistent in [false, true] {
                let loader = DataLoader::streaming(Uneven).num_workers(3).prefetch_factor(prefetch);
                let loader = loader.persistent_workers(persistent).build().unwrap();
                for _ in 0..3 {
                    assert_eq!(epoch(&loader).concat(), [0, 10, 11, 12, 13, 14]);
                }
            }
            drop(builder);
        }
    });
}

#[test]
fn every_worker_passes_once_in_every_epoch() {
    watched(|| {
        for persistent in [false, true] {
            let begun: Arc<Mutex<Vec<WorkerInfo>>> = Arc::default();
            let dataset = Shares { len: 7, special: Ok, begun: begun.clone() };
            let builder = DataLoader::streaming(dataset).num_workers(2).persistent_workers(persistent);
            let loader = builder.seed(3).build().unwrap();
            for number in 0..3 {
                assert_eq!(epoch(&loader).concat().len(), 7);
                let mut infos = std::mem::take(&mut *begun.lock().unwrap());
                infos.sort_by_key(|info| info.id);
                assert_eq!(infos, [0, 1].map(|id| WorkerInfo::new(id, 2, 3, number)));
            }
        }
    });
}

#[test]
fn without_workers_there_is_one_pass() {
    let loader = shares(5).batch_size(2).build().unwrap();
    assert_eq!(loader.num_batches(), None);
    for _ in 0..2 {
        assert_eq!(epoch(&loader), [vec![0, 1], vec![2, 3], vec![4]]);
    }
}

#[test]
fn drop_last_holds_for_each_worker() {
    watched(|| {
        let loader = shares(11).batch_size(2).drop_last(true).num_workers(2).build().unwrap();
        // Worker 0 has six numbers, worker 1 has five.
        assert_eq!(epoch(&loader), [[0, 2], [1, 3], [4, 6], [5, 7], [8, 10]]);
    });
}

#[test]
fn an_empty_stream_is_an_empty_epoch() {
    watched(|| {
        for workers in [0, 2] {
            let loader = shares(0).num_workers(workers).persistent_workers(workers > 0).build().unwrap();
            assert!(epoch(&loader).is_empty() && epoch(&loader).is_empty());
        }
    });
}

#[test]
fn an_error_in_the_stream_costs_its_batch_only() {
    watched(|| {
        for workers in [0, 1] {
            let special = |number| if number == 3 { Err("torn".into()) } else { Ok(number) };
            let builder = DataLoader::streaming(Shares { len: 8, special, begun: Arc::default() });
            let mut batches: Vec<_> =
                builder.batch_size(2).num_workers(workers).build().unwrap().into_iter().collect();
            let error = batches.remove(1).unwrap_err();
            assert!(error.is_dataset() && error.batch() == Some(1));
            assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "torn");
            assert_eq!(batches.into_iter().map(numbers).collect::<Vec<_>>(), [[0, 1], [4, 5], [6, 7]]);
        }
    });
}

#[test]
fn a_panic_in_the_stream_ends_this_stream() {
    watched(|| {
        for workers in [0, 2] {
            let special = |number| if number == 2 { panic!("no such row") } else { Ok(number) };
            let builder = DataLoader::streaming(Shares { len: 6, special, begun: Arc::default() });
            let loader = builder.num_workers(workers).build().unwrap();
            let (fine, errors): (Vec<_>, Vec<_>) = loader.into_iter().partition(Result::is_ok);
            let fine: Vec<_> = fine.into_iter().flat_map(numbers).collect();
            assert_eq!(fine, if workers == 0 { vec![0, 1] } else { vec![0, 1, 3, 5] });
            let [Err(error)] = errors.as_slice() else { panic!("{errors:?}") };
            assert!(error.is_panic() && error.to_string().contains("no such row"), "{error}");
        }
    });
}

#[test]
fn a_stream_that_cannot_begin_is_an_error_and_an_end() {
    watched(|| {
        struct Closed;
        impl IterableDataset for Closed {
            type Sample = Sample;
            fn iter<'a>(&'a self, _: &WorkerInfo) -> Result<Stream<'a, Sample>, BoxError> {
                Err("the door is closed".into())
            }
        }
        for workers in [0, 2] {
            let loader = DataLoader::streaming(Closed).num_workers(workers).build().unwrap();
            let batches: Vec<_> = loader.into_iter().collect();
            assert_eq!(batches.len(), workers.max(1) as usize);
            assert!(batches.iter().all(|batch| batch.as_ref().is_err_and(Error::is_dataset)));
        }
    });
}

#[test]
fn a_stream_without_end_can_be_left() {
    watched(|| {
        for persistent in [false, true] {
            let builder = shares(i64::MAX).batch_size(3).num_workers(2).persistent_workers(persistent);
            let loader = builder.build().unwrap();
            for _ in 0..3 {
                let first: Vec<_> = loader.iter().unwrap().take(2).map(numbers).collect();
                assert_eq!(first, [[0, 2, 4], [1, 3, 5]]);
            }
        }
    });
}

/// Three numbers, and a panic when the stream is dropped.
struct Bomb;

impl IterableDataset for Bomb {
    type Sample = Sample;

    fn iter<'a>(&'a self, _info: &WorkerInfo) -> Result<Stream<'a, Sample>, BoxError> {
        struct Fuse(i64);
        impl Iterator for Fuse {
            type Item = Result<Sample, BoxError>;
            fn next(&mut self) -> Option<Self::Item> {
                self.0 += 1;
                (self.0 <= 3).then(|| Ok(Sample::new().with("number", self.0)))
            }
        }
        impl Drop for Fuse {
            fn drop(&mut self) {
                panic!("the fuse has burnt down");
            }
        }
        Ok(Box::new(Fuse(0)))
    }
}

#[test]
fn a_panic_at_the_end_of_a_stream_is_an_error_in_its_place() {
    watched(|| {
        for workers in [0, 1] {
            let loader = DataLoader::streaming(Bomb).num_workers(workers).build().unwrap();
            let batches: Vec<_> = loader.into_iter().collect();
            assert_eq!(batches.iter().filter(|batch| batch.is_ok()).count(), 3);
            let errors: Vec<_> = batches.into_iter().filter_map(Result::err).collect();
            assert!(matches!(errors.as_slice(), [error] if error.is_panic()), "{errors:?}");
        }
    });
}

#[test]
fn a_stream_whose_worker_cannot_begin_is_one_error_for_each_worker_and_epoch() {
    watched(|| {
        let builder = shares(10).num_workers(2).persistent_workers(true);
        let loader = builder.worker_init(|_| Err("no disk".into())).build().unwrap();
        for _ in 0..2 {
            let errors: Vec<_> = loader.into_iter().map(|batch| batch.unwrap_err()).collect();
            assert_eq!(errors.len(), 2);
            assert!(errors.iter().all(Error::is_init_worker));
        }
    });
}
