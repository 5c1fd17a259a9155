//! What a program can rely on.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use forebay::{
    Array, ArrayView, ArrayViewMut, Batch, Batches, BoxError, Builder, DType, DataLoader, Dataset, Element,
    Error, Indexed, Sample,
};
use proptest::prelude::*;

mod common;
use common::watched;

/// A dataset whose samples `get` makes.
struct Made<F> {
    len: usize,
    get: F,
}

impl<F: Fn(usize) -> Result<Sample, BoxError> + Send + Sync> Dataset for Made<F> {
    type Sample = Sample;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<Sample, BoxError> {
        (self.get)(index)
    }
}

fn made<F: Fn(usize) -> Result<Sample, BoxError> + Send + Sync>(len: usize, get: F) -> Made<F> {
    Made { len, get }
}

/// Samples that say who they are: their index, and 2000 numbers that only they have.
fn numbered(index: usize) -> Result<Sample, BoxError> {
    let image = (0..2000).map(|place| (index * 2000 + place) as f32).collect::<Vec<_>>();
    Ok(Sample::new().with("index", index as u64).with("image", Array::from_vec([20, 100], image)?))
}

fn numbers(len: usize) -> impl Dataset<Sample = Sample> + 'static {
    made(len, numbered)
}

/// The indices of a batch, after a look at all its numbers.
fn indices(batch: &Batch) -> Vec<usize> {
    let indices = batch.array::<u64>("index").unwrap();
    let images = batch.array::<f32>("image").unwrap();
    assert_eq!(indices.shape(), [batch.len()]);
    assert_eq!(images.shape(), [batch.len(), 20, 100]);
    for (index, image) in indices.as_slice().iter().zip(images.as_slice().chunks(2000)) {
        assert!(
            image.iter().enumerate().all(|(place, value)| *value == (*index * 2000 + place as u64) as f32)
        );
    }
    indices.as_slice().iter().map(|index| *index as usize).collect()
}

fn epoch(loader: &DataLoader) -> Vec<Vec<usize>> {
    loader.into_iter().map(|batch| indices(&batch.unwrap())).collect()
}

#[test]
fn loaders_batches_and_errors_can_go_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync>() {}
    is_send::<DataLoader>();
    is_sync::<DataLoader>();
    is_send::<Builder<Indexed<Made<fn(usize) -> Result<Sample, BoxError>>>>>();
    is_send::<Batches>();
    is_send::<Batch>();
    is_sync::<Batch>();
    is_send::<Error>();
    is_sync::<Error>();
    is_send::<Sample>();
    is_send::<ArrayView<'_, f32>>();
    is_send::<ArrayViewMut<'_, f32>>();
}

#[test]
fn without_shuffle_batches_follow_the_dataset() {
    watched(|| {
        for workers in [0, 2] {
            let loader = DataLoader::builder(numbers(7)).batch_size(3).num_workers(workers).build().unwrap();
            for _ in 0..2 {
                assert_eq!(epoch(&loader), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
            }
            assert_eq!(loader.num_batches(), Some(3));
        }
    });
}

#[test]
fn drop_last_leaves_the_short_batch_out() {
    watched(|| {
        for workers in [0, 2] {
            let builder = DataLoader::builder(numbers(7)).batch_size(3).drop_last(true);
            let loader = builder.num_workers(workers).build().unwrap();
            assert_eq!(epoch(&loader), [[0, 1, 2], [3, 4, 5]]);
            assert_eq!(loader.num_batches(), Some(2));
        }
    });
}

#[test]
fn an_empty_dataset_has_epochs_without_batches() {
    watched(|| {
        for workers in [0, 2] {
            let loader =
                DataLoader::builder(numbers(0)).shuffle(true).seed(1).num_workers(workers).build().unwrap();
            assert!(loader.num_batches() == Some(0) && epoch(&loader).is_empty());
        }
    });
}

#[test]
fn every_epoch_of_a_shuffled_loader_has_another_order() {
    watched(|| {
        let loader = DataLoader::builder(numbers(50)).batch_size(50).shuffle(true).seed(3).build().unwrap();
        let orders = [epoch(&loader), epoch(&loader), epoch(&loader)];
        assert!(orders[0] != orders[1] && orders[1] != orders[2] && orders[0] != orders[2]);
    });
}

#[test]
fn an_epoch_can_be_asked_for_by_its_number() {
    watched(|| {
        let loader = || DataLoader::builder(numbers(20)).batch_size(3).shuffle(true).seed(3).build().unwrap();
        let (counted, asked) = (loader(), loader());
        for number in 0..4 {
            let by_number: Vec<_> =
                asked.epoch(number).unwrap().map(|batch| indices(&batch.unwrap())).collect();
            assert_eq!(by_number, epoch(&counted));
        }
        assert_eq!(epoch(&asked), epoch(&loader()), "it is not counted");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn every_epoch_has_every_sample_exactly_once(
        len in 0usize..80, batch_size in 1usize..20, seed: Option<u64>, workers in 0u32..4, prefetch_factor in 1u32..4,
    ) {
        watched(move || {
            let builder = DataLoader::builder(numbers(len)).batch_size(batch_size).num_workers(workers);
            let builder = builder.prefetch_factor(prefetch_factor);
            let loader = if let Some(seed) = seed { builder.shuffle(true).seed(seed) } else { builder }.build().unwrap();
            for _ in 0..2 {
                let batches = epoch(&loader);
                assert_eq!(Some(batches.len()), loader.num_batches());
                let mut seen = batches.concat();
                seen.sort_unstable();
                assert_eq!(seen, (0..len).collect::<Vec<_>>());
            }
        });
    }

    #[test]
    fn batches_are_the_same_for_any_number_of_workers(len in 1usize..60, batch_size in 1usize..20, seed: u64) {
        watched(move || {
            let batches = [0, 1, 3].map(|workers| {
                let builder = DataLoader::builder(numbers(len)).batch_size(batch_size).shuffle(true).seed(seed);
                let loader = builder.num_workers(workers).build().unwrap();
                [epoch(&loader), epoch(&loader)]
            });
            assert!(batches[0] == batches[1] && batches[1] == batches[2]);
        });
    }
}

#[test]
fn several_epochs_can_be_under_way_at_once() {
    watched(|| {
        let loader = DataLoader::builder(numbers(30))
            .batch_size(4)
            .shuffle(true)
            .seed(5)
            .num_workers(2)
            .build()
            .unwrap();
        let pairs: Vec<_> = loader.iter().unwrap().zip(loader.iter().unwrap()).collect();
        let (first, second): (Vec<_>, Vec<_>) =
            pairs.into_iter().map(|(one, two)| (indices(&one.unwrap()), indices(&two.unwrap()))).unzip();
        let again = DataLoader::builder(numbers(30)).batch_size(4).shuffle(true).seed(5).build().unwrap();
        assert_eq!([first, second], [epoch(&again), epoch(&again)]);
    });
}

#[test]
fn elements_of_every_type_arrive_as_they_were() {
    fn check<E: Element + fmt::Debug + PartialEq>(dtype: DType, values: [E; 3]) {
        for workers in [0, 1] {
            let sample = move |_| {
                let (array, none) = (Array::from_vec([3, 1], values.to_vec())?, Vec::<E>::new());
                Ok(Sample::new().with("scalar", values[1]).with("array", array).with("none", none))
            };
            let loader =
                DataLoader::builder(made(2, sample)).batch_size(2).num_workers(workers).build().unwrap();
            let batch = loader.iter().unwrap().next().unwrap().unwrap();
            assert_eq!(batch.names().collect::<Vec<_>>(), ["scalar", "array", "none"]);
            let array = |name| batch.array::<E>(name).unwrap();
            assert_eq!(
                (array("scalar").shape(), array("scalar").as_slice()),
                (&[2][..], &[values[1]; 2][..])
            );
            assert_eq!(array("array").shape(), [2, 3, 1]);
            assert_eq!(array("array").as_slice(), [values, values].concat());
            assert_eq!((array("none").shape(), array("none").as_slice()), (&[2, 0][..], &[][..]));
            assert_eq!(batch.dtype("array"), Some(dtype));
            assert_eq!(dtype.bytes(), size_of::<E>());
            assert_eq!(dtype.to_string(), std::any::type_name::<E>());
        }
    }
    watched(|| {
        check(DType::Bool, [true, false, true]);
        check(DType::U8, [0, 1, u8::MAX]);
        check(DType::U16, [0, 1, u16::MAX]);
        check(DType::U32, [0, 1, u32::MAX]);
        check(DType::U64, [0, 1, u64::MAX]);
        check(DType::I8, [i8::MIN, -1, i8::MAX]);
        check(DType::I16, [i16::MIN, -1, i16::MAX]);
        check(DType::I32, [i32::MIN, -1, i32::MAX]);
        check(DType::I64, [i64::MIN, -1, i64::MAX]);
        check(DType::F32, [f32::MIN, -0.5, f32::INFINITY]);
        check(DType::F64, [f64::MIN, -0.5, f64::INFINITY]);
    });
}

#[test]
fn a_batch_of_a_worker_is_not_copied_on_its_way() {
    watched(|| {
        let loader = DataLoader::builder(numbers(64)).batch_size(32).num_workers(1).build().unwrap();
        for batch in &loader {
            let batch = batch.unwrap();
            assert!(!batch.was_copied());
            let images = batch.array::<f32>("image").unwrap();
            assert_eq!(images.as_slice().as_ptr() as usize % 64, 0);
        }
    });
}

#[test]
fn a_change_in_a_batch_is_seen_in_no_other() {
    watched(|| {
        for workers in [0, 2] {
            let loader = DataLoader::builder(numbers(40)).batch_size(4).num_workers(workers).build().unwrap();
            let mut kept: Vec<Batch> = Vec::new();
            for batch in &loader {
                let mut batch = batch.unwrap();
                indices(&batch);
                let mut images = batch.array_mut::<f32>("image").unwrap();
                assert_eq!(images.shape(), [4, 20, 100]);
                images.as_mut_slice().fill(-1.0);
                kept.push(batch);
            }
            for batch in &kept {
                assert!(batch.array::<f32>("image").unwrap().as_slice().iter().all(|value| *value == -1.0));
            }
            assert_eq!(epoch(&loader).concat(), (0..40).collect::<Vec<_>>());
        }
    });
}

#[test]
fn all_batches_can_be_kept_even_when_they_do_not_fit_into_the_memory_budget() {
    watched(|| {
        let builder = DataLoader::builder(numbers(400)).batch_size(10).num_workers(2);
        let loader = builder.memory_budget(1 << 20).build().unwrap();
        let kept: Vec<Batch> = loader.iter().unwrap().map(Result::unwrap).collect();
        assert!(!kept[0].was_copied() && kept[39].was_copied());
        let seen: Vec<_> = kept.iter().flat_map(indices).collect();
        assert_eq!(seen, (0..400).collect::<Vec<_>>());
    });
}

#[test]
fn batches_outlive_their_loader() {
    watched(|| {
        let loader = DataLoader::builder(numbers(20)).batch_size(10).num_workers(2).build().unwrap();
        let kept: Vec<Batch> = loader.iter().unwrap().map(Result::unwrap).collect();
        drop(loader);
        assert_eq!(kept.iter().flat_map(indices).collect::<Vec<_>>(), (0..20).collect::<Vec<_>>());
    });
}

#[test]
fn arrays_may_be_added_in_any_order() {
    watched(|| {
        let sample = |index| {
            let (a, b) = (index as u8, index as f64);
            Ok(if index % 2 == 0 {
                Sample::new().with("a", a).with("b", b)
            } else {
                Sample::new().with("b", b).with("a", a)
            })
        };
        let loader = DataLoader::builder(made(3, sample)).batch_size(3).build().unwrap();
        let batch = loader.iter().unwrap().next().unwrap().unwrap();
        assert_eq!(batch.array::<u8>("a").unwrap().as_slice(), [0, 1, 2]);
        assert_eq!(batch.array::<f64>("b").unwrap().as_slice(), [0.0, 1.0, 2.0]);
    });
}

#[derive(Debug, PartialEq)]
struct Unreadable(usize);

impl fmt::Display for Unreadable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "record {} is unreadable", self.0)
    }
}

impl std::error::Error for Unreadable {}

/// The one error of an epoch of ten batches of four, which must come in the place of the batch of index 17.
fn only_error(
    workers: u32,
    get: impl Fn(usize) -> Result<Sample, BoxError> + Send + Sync + 'static,
) -> Error {
    let loader = DataLoader::builder(made(40, get)).batch_size(4).num_workers(workers).build().unwrap();
    let mut error = None;
    for (place, batch) in loader.iter().unwrap().enumerate() {
        match batch {
            Ok(batch) => assert_eq!(indices(&batch)[0], place * 4),
            Err(cost) => {
                assert_eq!(place, 4);
                error = Some(cost);
            }
        }
    }
    let error = error.expect("batch 4 cannot be made");
    assert_eq!((error.batch(), error.index()), (Some(4), Some(17)));
    assert_eq!(error.worker(), (workers > 0).then(|| 4 % workers));
    error
}

#[test]
fn an_error_of_the_dataset_comes_in_the_place_of_the_batch() {
    watched(|| {
        for workers in [0, 3] {
            let error = only_error(workers, |index| {
                if index == 17 { Err(Unreadable(index).into()) } else { numbered(index) }
            });
            assert!(error.is_dataset());
            let source = error.source().expect("the dataset's own error");
            assert_eq!(source.downcast_ref::<Unreadable>(), Some(&Unreadable(17)));
            let text = error.to_string();
            assert!(text.contains("index 17") && text.contains("batch 4"), "{text}");
            assert!(text.contains(if workers == 0 { "without workers" } else { "worker 1" }), "{text}");
        }
    });
}

#[test]
fn a_panic_of_the_dataset_is_an_error_in_the_place_of_the_batch() {
    watched(|| {
        for workers in [0, 3] {
            let error = only_error(workers, |index| {
                assert_ne!(index, 17, "no record");
                numbered(index)
            });
            assert!(error.is_panic());
            let text = error.to_string();
            assert!(
                text.contains("index 17") && text.contains("batch 4") && text.contains("no record"),
                "{text}"
            );
        }
    });
}

#[test]
fn samples_that_differ_are_an_error_that_names_both() {
    watched(|| {
        let wrong = [
            (Sample::new().with("index", 0u64).with("image", vec![0f32; 2000]), "image: f32[2000]"),
            (
                Sample::new()
                    .with("index", 0u64)
                    .with("image", Array::from_vec([100, 20], vec![0f32; 2000]).unwrap()),
                "image: f32[100, 20]",
            ),
            (Sample::new().with("index", 0u32).with("image", vec![0f32; 2000]), "index: u32[]"),
            (Sample::new().with("index", 0u64), "index: u64[]"),
            (Sample::new(), "no arrays"),
        ];
        for (sample, text) in wrong {
            let error =
                only_error(2, move |index| if index == 17 { Ok(sample.clone()) } else { numbered(index) });
            assert!(error.is_mismatch());
            let message = error.to_string();
            assert!(message.contains("index 16 has index: u64[], image: f32[20, 100]"), "{message}");
            assert!(message.contains("index 17 has") && message.contains(text), "{message}");
        }
    });
}

#[test]
fn a_batch_that_does_not_fit_into_the_memory_budget_is_an_error_with_numbers() {
    watched(|| {
        let large =
            |index| Ok(Sample::new().with("large", vec![0u8; if index == 1 { 3 << 20 } else { 100 }]));
        let builder = DataLoader::builder(made(3, large)).num_workers(1).memory_budget(1 << 20);
        let batches: Vec<_> = builder.build().unwrap().iter().unwrap().collect();
        let [Ok(_), Err(error), Ok(_)] = batches.as_slice() else { panic!("{batches:?}") };
        assert!(error.is_memory());
        assert_eq!((error.batch(), error.worker()), (Some(1), Some(0)));
        let source = error.source().expect("the numbers").to_string();
        assert!(source.contains(&(3 << 20).to_string()), "{source}");
    });
}

#[test]
fn indices_that_do_not_fit_into_the_memory_budget_are_an_error_of_the_epoch() {
    watched(|| {
        let builder = DataLoader::builder(numbers(1 << 20)).batch_size(1 << 20).num_workers(1);
        let loader = builder.memory_budget(4 << 20).build().unwrap();
        let error = loader.iter().unwrap_err();
        assert!(error.is_memory() && error.batch().is_none(), "{error}");
        assert!(error.to_string().contains(&((8 << 20) + 16).to_string()), "{error}");
        let items: Vec<_> = loader.into_iter().collect();
        assert!(matches!(items.as_slice(), [Err(_)]));
    });
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_its_value() {
    let builder = || DataLoader::builder(numbers(10));
    for (builder, text) in [
        (builder().batch_size(0), "batch_size must be at least 1, but is 0"),
        (builder().prefetch_factor(0), "prefetch_factor must be at least 1, but is 0"),
        (builder().num_workers(100_000), "100000"),
        (builder().num_workers(2).memory_budget(10), "10"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(text), "{error}");
    }
}

#[test]
fn an_array_of_another_size_than_its_elements_is_refused() {
    for (shape, len) in [(vec![2, 3], 5), (vec![], 0), (vec![0], 1), (vec![usize::MAX, 2], 2)] {
        let error = Array::from_vec(shape.clone(), vec![0u8; len]).unwrap_err();
        assert!(error.is_array() && error.to_string().contains(&format!("{shape:?}")), "{error}");
    }
}

#[test]
fn an_array_that_is_not_there_is_an_error_that_lists_those_that_are() {
    let loader = DataLoader::builder(numbers(1)).build().unwrap();
    let batch = loader.iter().unwrap().next().unwrap().unwrap();
    let error = batch.array::<u8>("mask").unwrap_err();
    assert!(error.is_array() && error.to_string().contains("index, image"), "{error}");
}

#[test]
fn an_array_of_another_type_is_an_error_that_names_its_type() {
    let loader = DataLoader::builder(numbers(1)).build().unwrap();
    let mut batch = loader.iter().unwrap().next().unwrap().unwrap();
    for error in [batch.array::<u8>("image").unwrap_err(), batch.array_mut::<f64>("image").unwrap_err()] {
        assert!(error.is_array() && error.to_string().contains("array::<f32>"), "{error}");
    }
}

#[test]
fn dropping_the_iterator_ends_its_workers_in_the_middle_of_a_batch() {
    const SAMPLES: usize = 300_000;
    watched(|| {
        let begun = Arc::new((Mutex::new(0), Condvar::new()));
        let count = begun.clone();
        let dataset = Arc::new(made(SAMPLES, move |index| {
            *count.0.lock().unwrap() += 1;
            count.1.notify_all();
            thread::yield_now();
            Ok(Sample::new().with("index", index as u64))
        }));
        let loader = DataLoader::builder(dataset.clone()).batch_size(SAMPLES).num_workers(3).build().unwrap();
        let batches = loader.iter().unwrap();
        drop(begun.1.wait_while(begun.0.lock().unwrap(), |samples| *samples == 0).unwrap());
        drop(batches);
        drop(loader);
        assert!(*begun.0.lock().unwrap() < SAMPLES);
        assert_eq!(Arc::strong_count(&dataset), 1, "the workers are gone");
    });
}

#[test]
fn after_its_end_an_epoch_stays_at_its_end() {
    watched(|| {
        for workers in [0, 1] {
            let loader = DataLoader::builder(numbers(3)).num_workers(workers).build().unwrap();
            let mut batches = loader.iter().unwrap();
            assert_eq!(batches.size_hint().1, Some(3));
            assert_eq!(batches.by_ref().count(), 3);
            assert_eq!(batches.size_hint(), (0, Some(0)));
            assert!(batches.next().is_none() && batches.next().is_none());
        }
    });
}

#[test]
fn a_name_given_twice_is_the_later_array() {
    let sample = Sample::new().with("a", 1u8).with("b", 2u8).with("a", 3i64);
    assert_eq!(sample.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(sample.array("a").map(Array::dtype), Some(DType::I64));
}
