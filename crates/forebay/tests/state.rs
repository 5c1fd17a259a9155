//! What the state of an epoch promises to the loader that goes on from it.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forebay::{
    Batch, Batches, BoxError, Builder, DataLoader, Dataset, Error, Indexed, IterableDataset, LoaderState,
    Sample, Stream, Uneven, WorkerInfo,
};

mod common;
use common::watched;

/// Numbers; `get` may refuse one, or wait.
struct Numbers {
    len: usize,
    get: Box<dyn Fn(usize) -> Result<(), BoxError> + Send + Sync>,
}

impl Dataset for Numbers {
    type Sample = Sample;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<Sample, BoxError> {
        (self.get)(index)?;
        Ok(Sample::new().with("number", index as i64))
    }
}

fn made(
    len: usize,
    get: impl Fn(usize) -> Result<(), BoxError> + Send + Sync + 'static,
) -> Builder<Indexed<Numbers>> {
    DataLoader::builder(Numbers { len, get: Box::new(get) })
}

fn numbers(len: usize) -> Builder<Indexed<Numbers>> {
    made(len, |_| Ok(()))
}

fn of(batch: &Batch) -> Vec<i64> {
    batch.array::<i64>("number").unwrap().as_slice().to_vec()
}

fn left(batches: Batches<'_>) -> Vec<Vec<i64>> {
    batches.map(|batch| of(&batch.unwrap())).collect()
}

/// As another program would have it.
fn stored(batches: &Batches<'_>) -> LoaderState {
    let state = serde_json::to_string(&batches.state().unwrap()).unwrap();
    serde_json::from_str(&state).unwrap()
}

#[test]
fn a_state_counts_what_was_given_out_and_not_what_workers_have_made() {
    watched(|| {
        let made: Arc<Mutex<BTreeSet<usize>>> = Arc::default();
        let note = made.clone();
        let all = (0..3).collect::<BTreeSet<_>>();
        let builder = self::made(20, move |index| {
            note.lock().unwrap().insert(index);
            Ok(())
        });
        let loader = builder.num_workers(1).prefetch_factor(3).build().unwrap();
        let mut batches = loader.iter().unwrap();
        while !made.lock().unwrap().is_superset(&all) {
            std::thread::yield_now();
        }
        assert_eq!(stored(&batches).samples, 0);
        batches.next().unwrap().unwrap();
        assert_eq!(stored(&batches).samples, 1);
    });
}

#[test]
fn an_epoch_goes_on_from_any_batch_and_the_next_one_follows() {
    watched(|| {
        for shuffle in [false, true] {
            let loader = |workers| {
                numbers(23).batch_size(4).shuffle(shuffle).seed(9).num_workers(workers).build().unwrap()
            };
            let before = loader(2);
            let epochs: Vec<Vec<Vec<i64>>> = (0..4).map(|epoch| left(before.epoch(epoch).unwrap())).collect();
            for taken in 0..=6 {
                let mut batches = before.epoch(2).unwrap();
                assert_eq!(batches.by_ref().take(taken).count(), taken);
                let state = stored(&batches);
                let after = loader(taken as u32 % 3);
                let mut rest = after.resume(&state).unwrap();
                assert_eq!(rest.size_hint().1, Some(6 - taken));
                assert_eq!(rest.state().unwrap(), state, "nothing has been given out yet");
                assert_eq!(
                    rest.by_ref().map(|batch| of(&batch.unwrap())).collect::<Vec<_>>(),
                    epochs[2][taken..]
                );
                assert_eq!(left(after.iter().unwrap()), epochs[3]);
                // An epoch that has ended has nothing left.
                let state = stored(&rest);
                assert_eq!((state.epoch, state.samples), (2, 23));
                assert!(left(after.resume(&state).unwrap()).is_empty());
                assert_eq!(left(after.iter().unwrap()), epochs[3]);
            }
        }
    });
}

#[test]
fn another_batch_size_cuts_the_rest_anew() {
    let loader = |size| numbers(20).batch_size(size).shuffle(true).drop_last(true).build().unwrap();
    let (before, after) = (loader(4), loader(3));
    let whole = left(before.epoch(0).unwrap()).concat();
    let mut batches = before.epoch(0).unwrap();
    batches.by_ref().take(2).for_each(|batch| drop(batch.unwrap()));
    let mut rest = after.resume(&stored(&batches)).unwrap();
    assert_eq!(of(&rest.next().unwrap().unwrap()), whole[8..11]);
    // And again, from a place that no batch of the first size has.
    let rest = left(before.resume(&stored(&rest)).unwrap());
    assert_eq!(rest, [&whole[11..15], &whole[15..19]]);
}

#[test]
fn an_error_in_the_place_of_a_batch_counts_and_a_timeout_does_not() {
    watched(|| {
        let (open, gate) = channel::<()>();
        let gate = Mutex::new(gate);
        let get = move |index| match index {
            1 => Err("torn".into()),
            2 => Ok(gate.lock().unwrap().recv()?),
            _ => Ok(()),
        };
        let loader = made(4, get).num_workers(1).timeout(Duration::from_millis(5)).build().unwrap();
        let mut batches = loader.iter().unwrap();
        loop {
            let before = batches.state().unwrap().samples;
            let timed_out = batches.next().unwrap().is_err_and(|error| error.is_timeout());
            assert_eq!(batches.state().unwrap().samples, before + u64::from(!timed_out));
            if timed_out && before == 2 {
                break;
            }
        }
        open.send(()).unwrap();
    });
}

/// A loader of ten batches of two, whose workers have given out numbers 0, 2 and 3 of them: number 1 waits.
fn out_of_turn(
    configure: impl Fn(Builder<Indexed<Numbers>>) -> Builder<Indexed<Numbers>>,
    check: impl Fn(LoaderState, Vec<i64>),
) {
    let (open, gate) = channel::<()>();
    let gate: Mutex<Receiver<()>> = Mutex::new(gate);
    let wait = move |index| if index == 2 { Ok(gate.lock().unwrap().recv()?) } else { Ok(()) };
    let builder = made(20, wait).batch_size(2).num_workers(2).prefetch_factor(1).in_order(false);
    let loader = configure(builder).build().unwrap();
    let mut batches = loader.iter().unwrap();
    let given: Vec<i64> = batches.by_ref().take(3).flat_map(|batch| of(&batch.unwrap())).collect();
    check(stored(&batches), given);
    open.send(()).unwrap();
}

#[test]
fn batches_that_came_out_of_turn_do_not_come_again() {
    watched(|| {
        out_of_turn(
            |builder| builder,
            |state, given| {
                assert_eq!(given, [0, 1, 4, 5, 6, 7]);
                assert_eq!((state.samples, state.ahead.as_slice()), (2, &[(2, 6)][..]));
                let rest = |size| left(numbers(20).batch_size(size).build().unwrap().resume(&state).unwrap());
                assert_eq!(rest(2)[..2], [[2, 3], [8, 9]]);
                assert_eq!(rest(5), [vec![2, 3, 8, 9, 10], (11..16).collect(), (16..20).collect()]);
            },
        );
    });
}

#[test]
fn a_sampler_and_a_batch_sampler_are_asked_again() {
    watched(|| {
        let backwards = |_: u64| (0..20).rev();
        let pairs = |_: u64| (0..10).map(|pair| vec![2 * pair, 2 * pair + 1]);
        let loader = |batches: bool| {
            let builder = numbers(20);
            if batches { builder.batch_sampler(pairs) } else { builder.batch_size(3).sampler(backwards) }
        };
        for batches in [false, true] {
            let before = loader(batches).num_workers(2).build().unwrap();
            let whole = left(before.epoch(0).unwrap());
            for taken in 0..=whole.len() {
                let mut epoch = before.epoch(0).unwrap();
                assert_eq!(epoch.by_ref().take(taken).count(), taken);
                let state = stored(&epoch);
                let done = if batches { state.batches } else { state.samples.div_ceil(3) };
                assert_eq!(done, taken as u64);
                let after = loader(batches).build().unwrap();
                assert_eq!(left(after.resume(&state).unwrap()), whole[taken..]);
            }
        }
        // Out of turn, too.
        let dealt = |_: u64| (0..10).map(|pair| vec![2 * pair, 2 * pair + 1]).collect::<Vec<_>>();
        let (open, gate) = channel::<()>();
        let gate: Mutex<Receiver<()>> = Mutex::new(gate);
        let wait = move |index| if index == 2 { Ok(gate.lock().unwrap().recv()?) } else { Ok(()) };
        let builder = made(20, wait).batch_sampler(dealt).num_workers(2).prefetch_factor(1);
        let loader = builder.in_order(false).build().unwrap();
        let mut epoch = loader.iter().unwrap();
        assert_eq!(epoch.by_ref().take(3).filter(Result::is_ok).count(), 3);
        let state = stored(&epoch);
        assert_eq!((state.batches, state.ahead.as_slice()), (1, &[(1, 3)][..]));
        let rest = left(numbers(20).batch_sampler(dealt).build().unwrap().resume(&state).unwrap());
        assert_eq!(rest[..2], [[2, 3], [8, 9]]);
        open.send(()).unwrap();
    });
}

#[test]
fn a_sampler_is_shared_out_and_goes_on_with_other_ranks() {
    let order = |_: u64| [5, 3, 8, 1, 0, 9, 2];
    let rank =
        |rank, world, size| numbers(10).sampler(order).batch_size(size).shard(rank, world).build().unwrap();
    let loaders = [rank(0, 2, 1), rank(1, 2, 1)];
    let mut epochs = [&loaders[0], &loaders[1]].map(|loader| loader.iter().unwrap());
    let taken = epochs.each_mut().map(|epoch| of(&epoch.next().unwrap().unwrap()));
    assert_eq!(taken, [[5], [3]]);
    let states = epochs.each_ref().map(stored);
    assert_eq!(states.each_ref().map(|state| state.samples), [2, 2]);
    assert_eq!(left(rank(0, 1, 5).resume(&states[1]).unwrap()), [[8, 1, 0, 9, 2]]);
    let of_three = [0, 1, 2].map(|number| left(rank(number, 3, 5).resume(&states[0]).unwrap()));
    assert_eq!(of_three, [[vec![8, 9]], [vec![1, 2]], [vec![0]]]);
}

fn refused(opened: Result<Batches<'_>, Error>) -> String {
    let error = opened.unwrap_err();
    assert!(error.is_state(), "{error}");
    error.to_string()
}

#[test]
fn a_state_of_another_loader_is_refused_with_what_differs() {
    let before = numbers(20).batch_size(4).shuffle(true).seed(7).build().unwrap();
    let mut batches = before.iter().unwrap();
    batches.next();
    let state = stored(&batches);
    let (one, few) = (|_: u64| 0..20, |_: u64| [vec![0]]);
    for (builder, text) in [
        (numbers(20).shuffle(true).seed(8), "seed 7 and not 8"),
        (numbers(21).shuffle(true).seed(7), "a dataset of length 20 and not 21"),
        (numbers(20).seed(7), "the order shuffled and not the dataset's"),
        (numbers(20).seed(7).sampler(one), "for its order no sampler and not a sampler"),
        (numbers(20).seed(7).batch_sampler(few), "for its order no sampler and not a batch_sampler"),
    ] {
        let loader = builder.build().unwrap();
        let error = refused(loader.resume(&state));
        assert!(error.contains(text) && error.contains("resume_anyway"), "{error}");
        assert!(loader.resume_anyway(&state).is_ok());
    }
    let error = refused(numbers(21).seed(8).build().unwrap().resume(&state));
    assert!(error.contains("seed 7 and not 8, a dataset of length 20 and not 21, the order"), "{error}");
    // A dataset that has grown.
    let mut epoch = numbers(20).batch_size(8).build().unwrap().iter().map(|epoch| stored(&epoch)).unwrap();
    epoch.samples = 8;
    let grown = numbers(30).batch_size(8).build().unwrap();
    assert_eq!(left(grown.resume_anyway(&epoch).unwrap()).concat(), (8..30).collect::<Vec<_>>());
}

#[test]
fn what_came_out_of_turn_is_known_to_its_rank_only() {
    watched(|| {
        out_of_turn(
            |builder| builder.shard(0, 1),
            |state, _| {
                let error = refused(numbers(20).shard(1, 2).build().unwrap().resume(&state));
                assert!(
                    error.contains("rank 0 of 1 got out of order") && error.contains("rank 1 of 2"),
                    "{error}"
                );
                let error = refused(numbers(20).shard(1, 2).build().unwrap().resume_anyway(&state));
                assert!(error.contains("in_order(true)"), "{error}");
            },
        );
    });
}

/// A state of a loader of `numbers(20)`, changed by hand.
fn changed(change: &str, by: &str) -> LoaderState {
    let state = stored(&numbers(20).build().unwrap().iter().unwrap());
    let text = serde_json::to_string(&state).unwrap();
    assert!(text.contains(change), "{text}");
    serde_json::from_str(&text.replace(change, by)).unwrap()
}

#[test]
fn a_state_that_no_loader_gives_is_refused() {
    let loader = numbers(20).build().unwrap();
    for (change, by, text) in [
        ("\"version\":1", "\"version\":2", "has version 2, but this release opens version 1"),
        ("\"samples\":0", "\"samples\":21", "passed 21 samples of 20"),
        ("\"ahead\":[]", "\"ahead\":[[0,3]]", "samples 0 to 3 ahead"),
        ("\"ahead\":[]", "\"ahead\":[[3,3]]", "samples 3 to 3 ahead"),
        ("\"ahead\":[]", "\"ahead\":[[3,5],[4,6]]", "samples 4 to 6 ahead, behind sample 5"),
        ("\"ahead\":[]", "\"ahead\":[[3,18446744073709551615]]", "samples 3 to 18446744073709551615"),
    ] {
        for error in [
            refused(loader.resume(&changed(change, by))),
            refused(loader.resume_anyway(&changed(change, by))),
        ] {
            assert!(error.contains(text), "{error}");
        }
    }
}

#[test]
fn a_state_can_say_anything_without_harm() {
    let most = u64::MAX.to_string();
    for (change, by) in [
        ("\"ahead\":[]", "\"ahead\":[[1,9223372036854775808]]"),
        ("\"epoch\":0", &*format!("\"epoch\":{most}")),
        ("\"length\":20", &*format!("\"length\":{most}")),
    ] {
        let state = changed(change, by);
        let (loader, one) = (numbers(20).build().unwrap(), |_: u64| 0..20);
        let mut batches = loader.resume_anyway(&state).unwrap();
        batches.by_ref().for_each(drop);
        batches.state().unwrap();
        let sampled = numbers(20).sampler(one).build().unwrap();
        sampled.resume_anyway(&state).unwrap().by_ref().for_each(drop);
    }
    let mut beyond = serde_json::to_value(changed("\"sampler\":null", "\"sampler\":\"sampler\"")).unwrap();
    beyond["samples"] = u64::MAX.into();
    let beyond: LoaderState = serde_json::from_value(beyond).unwrap();
    let sampled = numbers(20).sampler(|_: u64| 0..20).shard(0, 3).build().unwrap();
    let mut batches = sampled.resume(&beyond).unwrap();
    assert!(batches.next().is_none());
    assert_eq!(batches.state().unwrap().samples, u64::MAX);
}

#[test]
fn states_of_version_1_are_still_opened() {
    let shuffled = r#"{"version":1,"seed":7,"epoch":3,"samples":8,"batches":0,"length":20,"shuffle":true,"sampler":null,
        "ahead":[[2,4]],"rank":0,"world":1}"#;
    let sampled = r#"{"version":1,"seed":0,"epoch":0,"samples":0,"batches":2,"length":4,"shuffle":false,
        "sampler":"batch_sampler","ahead":[],"rank":0,"world":1}"#;
    let loader = numbers(20).batch_size(2).shuffle(true).seed(7).build().unwrap();
    let whole = left(loader.epoch(3).unwrap());
    let rest = left(loader.resume(&serde_json::from_str(shuffled).unwrap()).unwrap());
    assert_eq!(rest, [&whole[4..5], &whole[6..]].concat());
    let loader = numbers(4).batch_sampler(|_: u64| [vec![0], vec![1], vec![2, 3]]).build().unwrap();
    assert_eq!(left(loader.resume(&serde_json::from_str(sampled).unwrap()).unwrap()), [[2, 3]]);
}

#[test]
fn a_state_is_small_and_fits_any_format() {
    let state = stored(&numbers(20).shuffle(true).seed(u64::MAX).build().unwrap().iter().unwrap());
    assert!(serde_json::to_string(&state).unwrap().len() < 200);
    let bytes = postcard::to_stdvec(&state).unwrap();
    assert_eq!(postcard::from_bytes::<LoaderState>(&bytes).unwrap(), state);
}

#[test]
fn a_stream_has_no_state() {
    struct None;
    impl IterableDataset for None {
        type Sample = Sample;
        fn iter<'a>(&'a self, _info: &WorkerInfo) -> Result<Stream<'a, Sample>, BoxError> {
            Ok(Box::new(std::iter::empty()))
        }
    }
    let stream = DataLoader::streaming(None).build().unwrap();
    let error = stream.iter().unwrap().state().unwrap_err();
    assert!(error.is_state() && error.to_string().contains("a stream has no state"), "{error}");
    refused(stream.resume(&stored(&numbers(1).build().unwrap().iter().unwrap())));
}

#[test]
fn every_rank_goes_on_whatever_is_done_with_uneven_samples() {
    for (uneven, drop_last, samples) in [
        (Uneven::Keep, false, [9, 8, 8]),
        (Uneven::Pad, false, [9, 9, 9]),
        (Uneven::Drop, false, [8, 8, 8]),
        (Uneven::Keep, true, [6, 6, 6]),
        (Uneven::Pad, true, [9, 9, 9]),
        (Uneven::Drop, true, [6, 6, 6]),
    ] {
        for (number, samples) in (0..).zip(samples) {
            let builder = numbers(25).batch_size(3).shard(number, 3).uneven(uneven).shuffle(true);
            let loader = builder.drop_last(drop_last).build().unwrap();
            let whole = left(loader.epoch(0).unwrap());
            assert_eq!(whole.concat().len(), samples, "{uneven:?}, drop_last {drop_last}");
            assert_eq!(loader.num_batches(), Some(whole.len()));
            for taken in 0..=whole.len() {
                let mut epoch = loader.epoch(0).unwrap();
                assert_eq!(epoch.by_ref().take(taken).count(), taken);
                assert_eq!(left(loader.resume(&stored(&epoch)).unwrap()), whole[taken..]);
            }
            let mut epoch = loader.epoch(0).unwrap();
            epoch.by_ref().for_each(drop);
            assert_eq!(stored(&epoch).samples, 25, "what was dropped is done, too");
        }
    }
}
