//! One stream everywhere: whatever makes the batches, and wherever it was broken off, the bits are the same; and they are
//! those of `tests/golden/stream.json`, which Rust and Python share:
//!
//! ```json
//! {"streams": [{"seed": 7, "epoch": 0, "length": 5, "shuffle": true, "batch_size": 2, "drop_last": false, "rank": 0,
//!               "world": 1, "uneven": "keep", "batches": [[3, 0], [1, 4], [2]], "words": [[[11, 12], [13, 14]], ...]}],
//!  "hashes": [{"seed": 7, "epoch": 0, "length": 20000, "hash": "0123456789abcdef"}],
//!  "workers": [{"seed": 7, "epoch": 0, "seeds": [21, 22, 23]}]}
//! ```
//!
//! - `streams`: the indices of every batch of a rank, and for every sample the first two words that its `sample_rng` draws
//!   (`numpy.random.Philox.random_raw`).
//! - `hashes`: of whole shuffled epochs of one rank. FNV-1a of 64 bits over the samples in order, each as three words of
//!   eight bytes, least significant first: the index and its two words.
//! - `workers`: `WorkerInfo.seed` of the first workers.
//!
//! `FOREBAY_WRITE_GOLDEN=1 cargo test -p forebay --test golden_streams golden` writes the file anew. A change of it breaks
//! the runs of others: it belongs in the changelog under "Streams that changed".
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fs;
use std::path::PathBuf;

use forebay::{
    Batch, BatchWriter, BoxError, Builder, Collate, DataLoader, Dataset, Indexed, IterableDataset,
    LoaderState, OwnedArray, Samples, Stream, Uneven, WorkerEntry, WorkerInfo, sample_rng,
};
use forebay_order::{Key, Shuffle};
use serde::{Deserialize, Serialize};

mod common;
use common::watched;

/// What a sample is: its index, and what it has drawn.
type Drawn = [u64; 3];

fn drawn(index: usize) -> Result<Drawn, BoxError> {
    let mut rng = sample_rng()?;
    Ok([index as u64, rng.next_u64(), rng.next_u64()])
}

#[derive(Serialize, Deserialize)]
struct Draws(usize);

impl Dataset for Draws {
    type Sample = Drawn;

    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize) -> Result<Drawn, BoxError> {
        drawn(index)
    }
}

/// The same as a stream, dealt to the workers.
#[derive(Serialize, Deserialize)]
struct DealtDraws(usize);

impl IterableDataset for DealtDraws {
    type Sample = Drawn;

    fn iter<'a>(&'a self, info: &WorkerInfo) -> Result<Stream<'a, Drawn>, BoxError> {
        Ok(Box::new(info.deal(0..self.0).map(drawn)))
    }
}

#[derive(Serialize, Deserialize)]
struct Rows;

impl Collate<Drawn> for Rows {
    type Batch = OwnedArray<u64>;

    fn collate(&self, samples: Samples<'_, Drawn>, page: &mut BatchWriter<'_>) -> Result<(), BoxError> {
        let rows = page.add::<u64>("rows", [samples.len(), 3])?;
        for (row, sample) in samples.enumerate() {
            page.write(rows, row * 3, &sample?)?;
        }
        Ok(())
    }

    fn open(&self, mut batch: Batch) -> Result<OwnedArray<u64>, BoxError> {
        Ok(batch.take("rows")?)
    }
}

type Loader = DataLoader<OwnedArray<u64>>;

fn rows(batch: &OwnedArray<u64>) -> Vec<Drawn> {
    batch.as_chunks().0.to_vec()
}

fn epoch(loader: &Loader, epoch: u64) -> Vec<Vec<Drawn>> {
    loader.epoch(epoch).unwrap().map(|batch| rows(&batch.unwrap())).collect()
}

#[test]
fn the_workers_begin_here() {
    WorkerEntry::new().dataset_with::<Draws, Rows>().streaming_with::<DealtDraws, Rows>().enter();
}

const ARGS: [&str; 3] = ["--exact", "the_workers_begin_here", "--nocapture"];

/// What the engine's parts promise, without any loader.
fn promised(seed: u64, epoch: u64, length: usize) -> Vec<Drawn> {
    let (key, shuffle) = (Key::new(seed, epoch), Shuffle::new(length as u64, Key::new(seed, epoch)));
    let sample = |index| {
        let mut rng = key.sample_rng(index);
        [index, rng.next_u64(), rng.next_u64()]
    };
    (0..length as u64).map(|place| sample(shuffle.at(place))).collect()
}

/// FNV-1a, of Fowler, Noll and Vo.
fn hash(samples: &[Drawn]) -> String {
    let bytes = samples.iter().flatten().flat_map(|word| word.to_le_bytes());
    let hash = bytes.fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    format!("{hash:016x}")
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Golden {
    streams: Vec<GoldenStream>,
    hashes: Vec<GoldenHash>,
    workers: Vec<GoldenWorkers>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct GoldenStream {
    seed: u64,
    epoch: u64,
    length: usize,
    shuffle: bool,
    batch_size: usize,
    drop_last: bool,
    rank: u32,
    world: u32,
    uneven: String,
    batches: Vec<Vec<u64>>,
    words: Vec<Vec<[u64; 2]>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct GoldenHash {
    seed: u64,
    epoch: u64,
    length: usize,
    hash: String,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct GoldenWorkers {
    seed: u64,
    epoch: u64,
    seeds: Vec<u64>,
}

impl GoldenStream {
    fn of((seed, epoch, length): (u64, u64, usize), shuffle: bool, cut: (usize, bool), shard: Shard) -> Self {
        let ((batch_size, drop_last), (rank, world, uneven)) = (cut, shard);
        let builder = DataLoader::builder(Draws(length)).collate(Rows).seed(seed).shuffle(shuffle);
        let builder = builder.batch_size(batch_size).drop_last(drop_last).shard(rank, world).uneven(uneven);
        let batches = self::epoch(&builder.build().unwrap(), epoch);
        let name = match uneven {
            Uneven::Keep => "keep",
            Uneven::Pad => "pad",
            Uneven::Drop => "drop",
        };
        let of_all = |batch: &Vec<Drawn>| batch.iter().map(|[index, ..]| *index).collect();
        let words = |batch: &Vec<Drawn>| batch.iter().map(|[_, first, second]| [*first, *second]).collect();
        Self {
            seed,
            epoch,
            length,
            shuffle,
            batch_size,
            drop_last,
            rank,
            world,
            uneven: name.into(),
            batches: batches.iter().map(of_all).collect(),
            words: batches.iter().map(words).collect(),
        }
    }
}

type Shard = (u32, u32, Uneven);

fn of_this_release() -> Golden {
    const ALONE: Shard = (0, 1, Uneven::Keep);
    let mut streams = vec![
        GoldenStream::of((0, 0, 0), true, (2, false), ALONE),
        GoldenStream::of((0, 0, 10), true, (4, false), ALONE),
        GoldenStream::of((0, 1, 10), true, (4, true), ALONE),
        GoldenStream::of((7, 0, 5), false, (2, false), ALONE),
        GoldenStream::of((u64::MAX, u64::MAX, 7), true, (7, false), ALONE),
    ];
    for uneven in [Uneven::Keep, Uneven::Pad, Uneven::Drop] {
        streams.extend((0..3).map(|rank| GoldenStream::of((7, 2, 16), true, (3, false), (rank, 3, uneven))));
    }
    streams.extend((0..3).map(|rank| GoldenStream::of((7, 2, 16), true, (3, true), (rank, 3, Uneven::Keep))));
    let hashes = [(7, 0, 100), (7, 0, 4096), (7, 0, 4097), (8, 3, 20_000), (1 << 63, 1, 5000)];
    let hashes = hashes.into_iter().map(|(seed, epoch, length)| {
        let builder = DataLoader::builder(Draws(length)).collate(Rows).seed(seed).shuffle(true);
        let loader = builder.batch_size(1000).build().unwrap();
        GoldenHash { seed, epoch, length, hash: hash(&self::epoch(&loader, epoch).concat()) }
    });
    let workers = [(0, 0), (7, 3), (u64::MAX, 1)].into_iter().map(|(seed, epoch)| {
        let seeds = (0..3).map(|id| WorkerInfo::new(id, 3, seed, epoch).seed).collect();
        GoldenWorkers { seed, epoch, seeds }
    });
    Golden { streams, hashes: hashes.collect(), workers: workers.collect() }
}

/// One line for each entry, so that a change shows where it is.
fn written(golden: &Golden) -> String {
    fn lines<T: Serialize>(entries: &[T]) -> String {
        let lines: Vec<String> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        lines.join(",\n")
    }
    let Golden { streams, hashes, workers } = golden;
    format!(
        "{{\"streams\": [\n{}\n], \"hashes\": [\n{}\n], \"workers\": [\n{}\n]}}\n",
        lines(streams),
        lines(hashes),
        lines(workers)
    )
}

#[test]
fn the_golden_streams_are_those_of_every_release() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/stream.json");
    if std::env::var_os("FOREBAY_WRITE_GOLDEN").is_some() {
        fs::write(&path, written(&of_this_release())).unwrap();
    }
    let golden: Golden = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(golden, of_this_release());
}

#[test]
fn the_golden_hashes_are_those_of_the_promised_samples() {
    for GoldenHash { seed, epoch, length, hash } in of_this_release().hashes {
        assert_eq!(self::hash(&promised(seed, epoch, length)), hash);
    }
}

/// What makes the batches.
#[derive(Debug, Clone, Copy)]
struct Crew {
    workers: u32,
    processes: bool,
    persistent: bool,
}

fn crews() -> Vec<Crew> {
    let mut crews = vec![Crew { workers: 0, processes: false, persistent: false }];
    for workers in 1..=3 {
        for processes in [false, true] {
            crews.extend([false, true].map(|persistent| Crew { workers, processes, persistent }));
        }
    }
    crews
}

const SEED: u64 = 7;
const LENGTH: usize = 53;

fn with_crew<S: forebay::Source>(builder: Builder<S, Rows>, crew: Crew) -> Builder<S, Rows> {
    builder.seed(SEED).num_workers(crew.workers).persistent_workers(crew.persistent)
}

/// The loaders of all ranks.
fn ranks(crew: Crew, batch_size: usize, world: u32) -> Vec<Loader> {
    let rank = |rank| {
        let builder: Builder<Indexed<Draws>, Rows> = DataLoader::builder(Draws(LENGTH)).collate(Rows);
        let builder = with_crew(builder, crew).shuffle(true).batch_size(batch_size).shard(rank, world);
        if crew.processes { builder.processes().process_args(ARGS) } else { builder }.build().unwrap()
    };
    (0..world).map(rank).collect()
}

/// What the ranks have, in the order of all: as cards that were dealt are taken back.
fn regrouped(ranks: &[Vec<Drawn>]) -> Vec<Drawn> {
    let rounds = ranks.iter().map(Vec::len).max().unwrap_or(0);
    (0..rounds).flat_map(|round| ranks.iter().filter_map(move |rank| rank.get(round))).copied().collect()
}

/// So many batches of epoch 1 of every rank, and where the ranks then stand.
fn broken_off(ranks: &[Loader], batches: usize) -> (Vec<Drawn>, LoaderState) {
    let (mut taken, mut states) = (Vec::new(), Vec::new());
    for loader in ranks {
        let mut epoch = loader.epoch(1).unwrap();
        let batches = epoch.by_ref().take(batches);
        taken.push(batches.flat_map(|batch| rows(&batch.unwrap())).collect());
        let state = serde_json::to_string(&epoch.state().unwrap()).unwrap();
        states.push(serde_json::from_str::<LoaderState>(&state).unwrap());
    }
    assert!(states.iter().all(|state| state.samples == states[0].samples), "{states:?}");
    (regrouped(&taken), states.swap_remove(0))
}

#[test]
fn a_stream_is_the_same_whoever_makes_it_and_wherever_it_was_broken_off() {
    the_workers_begin_here();
    watched(|| {
        let golden = [0, 1].map(|epoch| hash(&promised(SEED, epoch, LENGTH)));
        let crews = crews();
        for (place, crew) in crews.iter().enumerate() {
            for (batch_size, world) in [(4, 1), (7, 2), (3, 3)] {
                let whole = ranks(*crew, batch_size, world);
                for (number, golden) in (0..).zip(&golden) {
                    let of_ranks: Vec<_> =
                        whole.iter().map(|loader| epoch(loader, number).concat()).collect();
                    assert_eq!(hash(&regrouped(&of_ranks)), *golden, "{crew:?} {batch_size} {world}");
                }
                for batches in [1, 3] {
                    let (mut all, state) = broken_off(&whole, batches);
                    assert_eq!(all.len() as u64, state.samples);
                    // Other workers, another batch size and another number of ranks go on.
                    let other = crews[(place + 3 * batches) % crews.len()];
                    let goes_on = ranks(other, batch_size % 4 + 2, (world + batches as u32) % 3 + 1);
                    let rest = |loader: &Loader| -> Vec<Drawn> {
                        loader.resume(&state).unwrap().flat_map(|batch| rows(&batch.unwrap())).collect()
                    };
                    all.extend(regrouped(&goes_on.iter().map(rest).collect::<Vec<_>>()));
                    assert_eq!(hash(&all), golden[1], "{crew:?} {batch_size} {world}, then {other:?}");
                }
            }
        }
    });
}

#[test]
fn a_stream_that_deals_its_samples_has_the_same_ones_for_any_workers_and_ranks() {
    the_workers_begin_here();
    watched(|| {
        let mut expected = promised(SEED, 2, LENGTH);
        expected.sort_unstable();
        for crew in crews() {
            for world in 1..=3 {
                let mut all = Vec::new();
                for rank in 0..world {
                    let builder = with_crew(DataLoader::streaming(DealtDraws(LENGTH)).collate(Rows), crew);
                    let builder = builder.batch_size(4).shard(rank, world);
                    let builder =
                        if crew.processes { builder.processes().process_args(ARGS) } else { builder };
                    all.extend(epoch(&builder.build().unwrap(), 2).concat());
                }
                all.sort_unstable();
                assert_eq!(all, expected, "{crew:?}, {world} ranks");
            }
        }
    });
}
