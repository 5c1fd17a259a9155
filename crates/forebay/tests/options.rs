//! What the options of a loader promise.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::collections::BTreeSet;
use std::error::Error as _;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use forebay::{
    BatchWriter, BoxError, Builder, Collate, DataLoader, Dataset, Error, Indexed, IterableDataset,
    OwnedArray, Sample, Samples, Stream, Uneven, WorkerInfo, sample_rng,
};

mod common;
use common::watched;

type Get = Box<dyn Fn(usize) -> Result<i64, BoxError> + Send + Sync>;

/// Numbers that `get` makes, and what happened in `init_worker`.
struct Numbers {
    len: usize,
    get: Get,
    begun: Arc<Mutex<Vec<WorkerInfo>>>,
}

impl Dataset for Numbers {
    type Sample = i64;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<i64, BoxError> {
        (self.get)(index)
    }

    fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError> {
        self.begun.lock().unwrap().push(*info);
        Ok(())
    }
}

/// Numbers as a plain array.
struct Flat;

impl Collate<i64> for Flat {
    type Batch = OwnedArray<i64>;

    fn collate(&self, samples: Samples<'_, i64>, page: &mut BatchWriter<'_>) -> Result<(), BoxError> {
        let numbers = page.add::<i64>("numbers", [samples.len()])?;
        for (row, number) in samples.enumerate() {
            page.write(numbers, row, &[number?])?;
        }
        Ok(())
    }

    fn open(&self, mut batch: forebay::Batch) -> Result<OwnedArray<i64>, BoxError> {
        Ok(batch.take("numbers")?)
    }
}

fn made(
    len: usize,
    get: impl Fn(usize) -> Result<i64, BoxError> + Send + Sync + 'static,
) -> Builder<Indexed<Numbers>, Flat> {
    DataLoader::builder(Numbers { len, get: Box::new(get), begun: Arc::default() }).collate(Flat)
}

/// The numbers from 0 on.
fn numbers(len: usize) -> Builder<Indexed<Numbers>, Flat> {
    made(len, |index| Ok(index as i64))
}

type Loader = DataLoader<OwnedArray<i64>>;

fn epoch(loader: &Loader) -> Vec<Vec<i64>> {
    loader.into_iter().map(|batch| batch.unwrap().to_vec()).collect()
}

#[test]
fn a_sampler_gives_the_order_of_each_epoch() {
    watched(|| {
        for workers in [0, 2] {
            let backwards = |epoch: u64| (0..6).rev().skip(epoch as usize).collect::<Vec<_>>();
            let loader = numbers(6).batch_size(4).num_workers(workers).sampler(backwards).build().unwrap();
            assert_eq!(loader.num_batches(), None);
            assert_eq!(epoch(&loader), [vec![5, 4, 3, 2], vec![1, 0]]);
            assert_eq!(epoch(&loader), [vec![4, 3, 2, 1], vec![0]]);
        }
    });
}

#[test]
fn drop_last_holds_for_a_sampler() {
    let loader = numbers(6).batch_size(4).drop_last(true).sampler(|_| 0..6).build().unwrap();
    assert_eq!(epoch(&loader), [[0, 1, 2, 3]]);
}

#[test]
fn a_batch_sampler_gives_the_samples_of_each_batch() {
    watched(|| {
        for workers in [0, 2] {
            let batches = |_| vec![vec![3], vec![], vec![0, 0, 5]];
            let loader = numbers(6).num_workers(workers).batch_sampler(batches).build().unwrap();
            assert_eq!(epoch(&loader), [vec![3], vec![], vec![0, 0, 5]]);
        }
    });
}

#[test]
fn an_index_that_is_out_of_range_is_an_error_that_names_the_sampler() {
    watched(|| {
        for workers in [0, 2] {
            let loader = numbers(6).batch_size(2).num_workers(workers).sampler(|_| [0, 1, 2, 6, 4, 5]);
            let batches: Vec<_> = loader.build().unwrap().into_iter().collect();
            let [Ok(_), Err(error), Ok(last)] = batches.as_slice() else { panic!("{batches:?}") };
            assert_eq!(last[..], [4, 5]);
            assert!(error.is_index());
            assert_eq!((error.index(), error.batch()), (Some(6), Some(1)));
            let text = error.to_string();
            assert!(text.contains("index 6") && text.contains("has 6 samples"), "{text}");
            assert!(text.contains("sampler `options::an_index"), "{text}");
        }
    });
}

#[test]
fn options_that_exclude_each_other_are_refused_with_the_reason() {
    struct Nothing;
    impl IterableDataset for Nothing {
        type Sample = Sample;
        fn iter<'a>(&'a self, _: &WorkerInfo) -> Result<Stream<'a, Sample>, BoxError> {
            Ok(Box::new(std::iter::empty()))
        }
    }
    let one = |_: u64| [0];
    let batch = |_: u64| [vec![0]];
    for (builder, text) in [
        (numbers(1).sampler(one).shuffle(true), "sampler excludes shuffle"),
        (numbers(1).batch_sampler(batch).batch_size(1), "batch_sampler excludes batch_size"),
        (numbers(1).batch_sampler(batch).drop_last(true), "excludes batch_size and drop_last"),
        (numbers(1).batch_sampler(batch).shuffle(true), "batch_sampler excludes shuffle"),
        (numbers(1).batch_sampler(batch).sampler(one), "batch_sampler excludes shuffle and sampler"),
        (numbers(1).batch_sampler(batch).shard(0, 1), "batch_sampler excludes shard"),
        (numbers(1).shard(2, 2), "shard(2, 2) is no share"),
        (numbers(1).shard(0, 0), "shard(0, 0) is no share"),
        (numbers(1).timeout(Duration::from_secs(1)), "timeout needs workers"),
        (numbers(1).timeout(Duration::ZERO).num_workers(1), "timeout must be more than 0 s"),
        (numbers(1).persistent_workers(true), "persistent_workers needs workers"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(text), "{error}");
    }
    for (builder, text) in [
        (DataLoader::streaming(Nothing).shuffle(true), "shuffle is not for it"),
        (DataLoader::streaming(Nothing).uneven(Uneven::Pad), "uneven is not for it"),
        (DataLoader::streaming(Nothing).sampler(one), "a stream has no indices"),
        (DataLoader::streaming(Nothing).batch_sampler(batch), "a stream has no indices"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(text), "{error}");
    }
    let error = DataLoader::streaming(Nothing).build().unwrap().epoch_from(0, 1).unwrap_err();
    assert!(error.is_config() && error.to_string().contains("batch 1"), "{error}");
}

/// A loader whose samples wait until something is sent.
fn gated(workers: u32) -> (std::sync::mpsc::Sender<()>, Builder<Indexed<Numbers>, Flat>) {
    let (open, gate) = channel::<()>();
    let gate: Mutex<Receiver<()>> = Mutex::new(gate);
    let wait = move |index| {
        if index % 2 == 1 {
            gate.lock().unwrap().recv()?;
        }
        Ok(index as i64)
    };
    (open, made(6, wait).num_workers(workers))
}

#[test]
fn a_timeout_names_the_worker_and_the_batch() {
    watched(|| {
        let (open, builder) = gated(2);
        let loader = builder.timeout(Duration::from_millis(20)).build().unwrap();
        let mut batches = loader.iter().unwrap();
        assert_eq!(batches.next().unwrap().unwrap()[..], [0]);
        let error = batches.next().unwrap().unwrap_err();
        assert!(error.is_timeout());
        assert_eq!((error.worker(), error.batch()), (Some(1), Some(1)));
        let text = error.to_string();
        assert!(text.contains("worker 1") && text.contains("batch 1") && text.contains("0.02 s"), "{text}");
        (0..3).for_each(|_| open.send(()).unwrap());
    });
}

#[test]
fn after_a_timeout_no_batch_is_missing() {
    watched(|| {
        let (open, builder) = gated(1);
        let loader = builder.timeout(Duration::from_millis(5)).build().unwrap();
        let (mut seen, mut timeouts) = (Vec::new(), 0);
        for batch in &loader {
            match batch {
                Ok(batch) => seen.push(batch[0]),
                Err(error) => {
                    assert!(error.is_timeout());
                    timeouts += 1;
                    open.send(()).unwrap();
                }
            }
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
        assert!(timeouts >= 1);
    });
}

#[test]
fn out_of_order_a_slow_batch_does_not_hold_others_up() {
    watched(|| {
        let (open, builder) = gated(2);
        let loader = builder.in_order(false).build().unwrap();
        let mut batches = loader.iter().unwrap();
        // One worker waits in batch 1; only the other one makes batches now, until it waits, too.
        let first: BTreeSet<i64> = batches.by_ref().take(2).map(|batch| batch.unwrap()[0]).collect();
        assert_eq!(first, BTreeSet::from([0, 2]));
        (0..3).for_each(|_| open.send(()).unwrap());
        let rest: BTreeSet<i64> = batches.map(|batch| batch.unwrap()[0]).collect();
        assert_eq!(rest, BTreeSet::from([1, 3, 4, 5]));
    });
}

/// The threads that made the batches of `epochs` epochs.
fn threads_of(epochs: usize, persistent: bool) -> Vec<BTreeSet<String>> {
    let seen: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let note = seen.clone();
    let builder = made(8, move |index| {
        note.lock().unwrap().insert(format!("{:?}", thread::current().id()));
        Ok(index as i64)
    });
    let loader = builder.num_workers(2).persistent_workers(persistent).build().unwrap();
    (0..epochs)
        .map(|_| {
            assert_eq!(epoch(&loader).concat(), (0..8).collect::<Vec<_>>());
            std::mem::take(&mut *seen.lock().unwrap())
        })
        .collect()
}

#[test]
fn persistent_workers_stay_from_epoch_to_epoch() {
    watched(|| {
        let epochs = threads_of(3, true);
        assert_eq!(epochs[0].len(), 2);
        assert!(epochs.iter().all(|threads| *threads == epochs[0]), "{epochs:?}");
    });
}

#[test]
fn other_workers_are_new_in_every_epoch() {
    watched(|| {
        let all: BTreeSet<String> = threads_of(3, false).into_iter().flatten().collect();
        assert_eq!(all.len(), 6);
    });
}

#[test]
fn an_epoch_that_was_broken_off_leaves_nothing_to_the_next_one() {
    watched(|| {
        let get = |index| if index == 3 { Err("always".into()) } else { Ok(index as i64) };
        let loader = made(20, get).num_workers(2).persistent_workers(true).build().unwrap();
        for taken in [1, 5, 0, 3] {
            assert_eq!(
                loader.iter().unwrap().take(taken).filter(Result::is_ok).count(),
                taken.min(4).min(taken)
            );
        }
        let (fine, errors): (Vec<_>, Vec<_>) = loader.into_iter().partition(Result::is_ok);
        assert_eq!((fine.len(), errors.len()), (19, 1));
        assert_eq!(errors[0].as_ref().unwrap_err().batch(), Some(3));
    });
}

#[test]
fn an_epoch_finds_room_whenever_the_one_before_gives_it_back() {
    watched(|| {
        let loader = numbers(20).num_workers(1).persistent_workers(true).build().unwrap();
        // The workers finish what nobody wants any more at any moment between these calls.
        for round in 0..300 {
            let mut batches = loader.iter().unwrap();
            (0..round % 10).for_each(|_| thread::yield_now());
            assert_eq!(batches.next().unwrap().unwrap()[..], [0]);
        }
    });
}

#[test]
fn two_epochs_at_once_do_not_disturb_each_other() {
    watched(|| {
        let loader = numbers(10).num_workers(2).persistent_workers(true).build().unwrap();
        for _ in 0..2 {
            let pairs = loader.iter().unwrap().zip(loader.iter().unwrap());
            assert!(
                pairs.map(|(one, other)| (one.unwrap()[0], other.unwrap()[0])).eq((0..10).map(|n| (n, n)))
            );
        }
    });
}

#[test]
fn every_worker_is_initialised_once_with_a_seed_of_its_own() {
    watched(|| {
        let begun: Arc<Mutex<Vec<WorkerInfo>>> = Arc::default();
        let later: Arc<Mutex<Vec<WorkerInfo>>> = Arc::default();
        let dataset = Numbers { len: 30, get: Box::new(|index| Ok(index as i64)), begun: begun.clone() };
        let note = later.clone();
        let builder = DataLoader::builder(dataset).collate(Flat).num_workers(3).seed(5);
        let init = move |info: &WorkerInfo| {
            note.lock().unwrap().push(*info);
            Ok(())
        };
        let loader = builder.worker_init(init).build().unwrap();
        let mut seeds = BTreeSet::new();
        for number in 0..4 {
            epoch(&loader);
            let mut infos = std::mem::take(&mut *begun.lock().unwrap());
            infos.sort_by_key(|info| info.id);
            assert_eq!(infos, [0, 1, 2].map(|id| WorkerInfo::new(id, 3, 5, number)));
            let mut closures = std::mem::take(&mut *later.lock().unwrap());
            closures.sort_by_key(|info| info.id);
            assert_eq!(closures, infos);
            seeds.extend(infos.iter().map(|info| info.seed));
        }
        assert_eq!(seeds.len(), 12);
    });
}

#[test]
fn a_worker_that_cannot_begin_says_why_in_the_place_of_its_batches() {
    watched(|| {
        let init = |info: &WorkerInfo| {
            if info.id == 1 { Err("no licence".into()) } else { Ok(()) }
        };
        let loader = numbers(6).num_workers(2).worker_init(init).build().unwrap();
        for (place, batch) in loader.iter().unwrap().enumerate() {
            let Err(error) = batch else {
                assert_eq!(place % 2, 0);
                continue;
            };
            assert!(error.is_init_worker());
            assert_eq!((error.worker(), error.batch()), (Some(1), Some(place as u64)));
            assert_eq!(error.source().unwrap().to_string(), "no licence");
        }
    });
}

#[test]
fn an_epoch_can_begin_at_any_batch() {
    watched(|| {
        for workers in [0, 2] {
            for shuffled in [false, true] {
                let builder = numbers(23).batch_size(4).num_workers(workers);
                let loader = if shuffled { builder.shuffle(true).seed(3) } else { builder }.build().unwrap();
                let all = |from| {
                    loader
                        .epoch_from(2, from)
                        .unwrap()
                        .map(|batch| batch.unwrap().to_vec())
                        .collect::<Vec<_>>()
                };
                let whole = all(0);
                for from in 0..=7 {
                    assert_eq!(all(from), whole[from.min(6)..]);
                }
            }
        }
    });
}

#[test]
fn beginning_late_reads_nothing_before() {
    watched(|| {
        let read: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
        let note = read.clone();
        let builder = made(40, move |index| {
            note.lock().unwrap().insert(index);
            if index == 38 { Err("torn".into()) } else { Ok(index as i64) }
        });
        let loader = builder.batch_size(4).num_workers(2).build().unwrap();
        let batches: Vec<_> = loader.epoch_from(0, 8).unwrap().collect();
        assert_eq!(*read.lock().unwrap(), (32..=38).collect());
        assert_eq!(batches[1].as_ref().unwrap_err().batch(), Some(9), "counted from the epoch's beginning");
    });
}

/// How a collate may go wrong.
#[derive(Clone, Copy, PartialEq)]
enum Wrong {
    Own,
    Panic,
    Outside,
    Twice,
    Huge,
    Large,
    Opening,
}

struct Failing(Wrong);

#[derive(Debug, thiserror::Error)]
#[error("{0} is no name for a number")]
struct NoName(i64);

impl Collate<i64> for Failing {
    type Batch = i64;

    fn collate(&self, samples: Samples<'_, i64>, page: &mut BatchWriter<'_>) -> Result<(), BoxError> {
        assert_eq!(samples.indices().map(<[_]>::len), Some(samples.len()));
        let wrong = samples.indices().unwrap()[0] == 2;
        let numbers = page.add::<i64>("numbers", [samples.len()])?;
        let slice = page.slice_mut(numbers)?;
        for (place, number) in slice.iter_mut().zip(samples) {
            *place = number?;
        }
        match self.0 {
            Wrong::Own if wrong => Err(NoName(2).into()),
            Wrong::Panic if wrong => panic!("no page"),
            Wrong::Outside if wrong => Ok(page.write(numbers, 1, &[1])?),
            Wrong::Huge if wrong => Ok(page.add::<u64>("huge", [usize::MAX / 8, 3]).map(drop)?),
            Wrong::Large if wrong => Ok(page.add::<u8>("large", [1 << 46]).map(drop)?),
            Wrong::Twice if wrong => Ok(page.add::<u8>("numbers", [1]).map(drop)?),
            _ => Ok(()),
        }
    }

    fn open(&self, mut batch: forebay::Batch) -> Result<i64, BoxError> {
        let number = batch.take::<i64>("numbers")?[0];
        if self.0 == Wrong::Opening && number == 2 { Err(NoName(2).into()) } else { Ok(number) }
    }
}

/// The one error of an epoch of four batches of one, in the place of number 2.
fn error_of(wrong: Wrong, workers: u32) -> Error {
    let loader = numbers(4).collate(Failing(wrong)).num_workers(workers).build().unwrap();
    let mut batches: Vec<_> = loader.into_iter().collect();
    assert!(matches!(batches.as_slice(), [Ok(0), Ok(1), Err(_), Ok(3)]), "{batches:?}");
    let error = batches.remove(2).unwrap_err();
    assert_eq!(error.batch(), Some(2));
    error
}

#[test]
fn an_array_larger_than_the_memory_is_an_error_of_memory_with_and_without_workers() {
    watched(|| {
        for workers in [0, 2] {
            assert!(error_of(Wrong::Large, workers).is_memory());
        }
    });
}

#[test]
fn a_timeout_beyond_all_time_is_none() {
    watched(|| {
        let loader = numbers(4).collate(Flat).num_workers(1).timeout(Duration::MAX).build().unwrap();
        assert_eq!(loader.into_iter().filter(Result::is_ok).count(), 4);
    });
}

#[test]
fn an_error_of_the_collate_keeps_its_type() {
    watched(|| {
        for workers in [0, 2] {
            for wrong in [Wrong::Own, Wrong::Opening] {
                let error = error_of(wrong, workers);
                assert!(error.is_collate());
                assert_eq!(error.source().unwrap().downcast_ref::<NoName>().unwrap().0, 2);
            }
        }
    });
}

#[test]
fn a_panic_of_the_collate_is_an_error_in_the_place_of_the_batch() {
    watched(|| {
        for workers in [0, 2] {
            let error = error_of(Wrong::Panic, workers);
            assert!(error.is_panic() && error.to_string().contains("no page"), "{error}");
        }
    });
}

#[test]
fn a_collate_cannot_write_where_it_has_set_nothing_aside() {
    watched(|| {
        for workers in [0, 2] {
            let error = error_of(Wrong::Outside, workers);
            let why = error.source().unwrap().to_string();
            assert!(why.contains("from number 1 on") && why.contains("[1]"), "{why}");
            let error = error_of(Wrong::Twice, workers);
            assert!(error.source().unwrap().to_string().contains("\"numbers\" already"));
            let error = error_of(Wrong::Huge, workers);
            assert!(error.source().unwrap().to_string().contains("larger than any memory"));
        }
    });
}

#[test]
fn an_error_of_the_dataset_passes_through_the_collate_with_its_index() {
    watched(|| {
        for workers in [0, 2] {
            let get = |index| if index == 5 { Err(NoName(5).into()) } else { Ok(index as i64) };
            let loader = made(8, get).batch_size(2).num_workers(workers).build().unwrap();
            let error = loader.into_iter().find_map(Result::err).unwrap();
            assert!(error.is_dataset());
            assert_eq!((error.index(), error.batch()), (Some(5), Some(2)));
            assert!(error.source().unwrap().is::<NoName>());
        }
    });
}

#[test]
fn an_array_outlives_the_batch_it_was_taken_from() {
    watched(|| {
        let loader = numbers(4096).batch_size(2048).num_workers(1).build().unwrap();
        let mut arrays: Vec<OwnedArray<i64>> = loader.into_iter().map(Result::unwrap).collect();
        drop(loader);
        arrays[0][7] = -1;
        assert_eq!((arrays[0][7], arrays[0][8], arrays[1][0]), (-1, 8, 2048));
    });
}

/// What every sample draws, in two calls.
fn drawing() -> Builder<Indexed<Numbers>, Flat> {
    made(30, |_| Ok((sample_rng()?.next_u64() ^ sample_rng()?.next_u64().rotate_left(1)).cast_signed()))
}

#[test]
fn a_samples_numbers_depend_on_seed_epoch_and_index_alone() {
    watched(|| {
        let drawn = |builder: Builder<Indexed<Numbers>, Flat>, epoch| -> Vec<i64> {
            builder.build().unwrap().epoch(epoch).unwrap().flat_map(|batch| batch.unwrap().to_vec()).collect()
        };
        let (this, next) = (drawn(drawing().seed(7), 0), drawn(drawing().seed(7), 1));
        let other = drawn(drawing().seed(8), 0);
        let distinct: BTreeSet<i64> = [&this, &next, &other].into_iter().flatten().copied().collect();
        assert_eq!(distinct.len(), 90);
        assert_eq!(drawn(drawing().seed(7).batch_size(7).num_workers(3), 1), next);
        assert_eq!(
            drawn(drawing().seed(7).sampler(|_| (0..30).rev()), 0),
            this.into_iter().rev().collect::<Vec<_>>()
        );
    });
}

#[test]
fn who_makes_no_sample_has_no_numbers() {
    struct Draws;
    impl Collate<i64> for Draws {
        type Batch = ();
        fn collate(&self, samples: Samples<'_, i64>, _page: &mut BatchWriter<'_>) -> Result<(), BoxError> {
            for sample in samples {
                sample?;
                assert!(sample_rng().unwrap_err().is_outside_sample());
            }
            Ok(sample_rng().map(drop)?)
        }
        fn open(&self, _batch: forebay::Batch) -> Result<(), BoxError> {
            Ok(())
        }
    }
    watched(|| {
        for workers in [0, 1] {
            let loader = drawing().collate(Draws).num_workers(workers).build().unwrap();
            let error = loader.iter().unwrap().next().unwrap().unwrap_err();
            let source = error.source().unwrap();
            assert!(error.is_collate() && source.to_string().contains("not making a sample"), "{source}");
            let elsewhere = |_| Ok(thread::spawn(|| sample_rng().map(|_| 0)).join().unwrap()?);
            let loader = made(1, elsewhere).num_workers(workers).build().unwrap();
            let error = loader.iter().unwrap().next().unwrap().unwrap_err();
            let own = error.source().unwrap().downcast_ref::<Error>().unwrap();
            assert!(error.is_dataset() && own.is_outside_sample());
        }
        let init = |_: &WorkerInfo| Ok(sample_rng().map(drop)?);
        let loader = drawing().num_workers(1).worker_init(init).build().unwrap();
        assert!(loader.iter().unwrap().next().unwrap().unwrap_err().is_init_worker());
    });
}

#[test]
fn a_loader_within_a_sample_leaves_its_numbers_alone() {
    watched(|| {
        let nested = |index| {
            let first = sample_rng()?.next_u64();
            let inner = drawing().build()?;
            inner.iter()?.for_each(drop);
            assert_eq!(index, 0);
            Ok((first ^ sample_rng()?.next_u64().rotate_left(1)).cast_signed())
        };
        let of = |builder: Builder<Indexed<Numbers>, Flat>| {
            builder.build().unwrap().iter().unwrap().next().unwrap().unwrap()[0]
        };
        assert_eq!(of(made(1, nested)), of(drawing()));
    });
}

#[test]
fn every_worker_knows_its_rank() {
    watched(|| {
        let begun: Arc<Mutex<Vec<WorkerInfo>>> = Arc::default();
        let dataset = Numbers { len: 9, get: Box::new(|index| Ok(index as i64)), begun: begun.clone() };
        let builder = DataLoader::builder(dataset).collate(Flat).num_workers(2).seed(5).shard(1, 3);
        assert_eq!(epoch(&builder.build().unwrap()), [[1], [4], [7]]);
        let mut infos = std::mem::take(&mut *begun.lock().unwrap());
        infos.sort_by_key(|info| info.id);
        assert_eq!(infos, [0, 1].map(|id| WorkerInfo::new(id, 2, 5, 0).on_rank(1, 3)));
        assert_eq!((infos[0].rank, infos[0].world), (1, 3));
    });
}

#[test]
fn the_longest_order_begins_at_once_anywhere() {
    let len = 1 << 62;
    let get = |index: usize| Ok(index as i64);
    let loader = made(len, get).batch_size(3).shuffle(true).shard(1, 2).build().unwrap();
    assert_eq!(loader.num_batches(), Some((len / 2).div_ceil(3)));
    let late = loader.num_batches().unwrap() - 1;
    let left: Vec<usize> = loader.epoch_from(3, late).unwrap().map(|batch| batch.unwrap().len()).collect();
    assert_eq!(left, [(len / 2 - 3 * late)]);
    let error = made(usize::MAX, get).shuffle(true).build().unwrap().iter().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("too long"), "{error}");
}
