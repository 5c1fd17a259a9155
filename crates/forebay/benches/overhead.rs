//! What the loader costs beside the work itself, against what anybody would write by hand: `cargo bench -p forebay`.
//!
//! Every round measures all of it, one after the other, so that whatever else the machine does meets them alike; the
//! medians of the rounds are compared. One JSON line for each comparison:
//!
//! - `rayon`: photographs decoded, resized and collated by two worker threads, against a hand-written rayon loop of two
//!   threads over the same dataset, which neither keeps an order nor hands anything over: seconds an epoch.
//! - `threads`: a batch of 64 integers from a worker thread, against round trips of two crossbeam channels between two
//!   threads: seconds each.
//! - `processes`: a batch of 64 integers from a worker process, against round trips over a pair of Unix sockets between two
//!   processes: seconds each.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the terminal, which may end with any error"
)]

use std::hint::black_box;
use std::io::{Cursor, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Instant;

use forebay::{
    Array, Batch, BatchWriter, BoxError, Collate, DataLoader, Dataset, OwnedArray, Sample, Samples,
    WorkerEntry,
};
use image::imageops::FilterType;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

const THREADS: usize = 2;
const SIDE: u32 = 112;
const PIXELS: usize = (SIDE * SIDE * 3) as usize;
const BATCH_SIZE: usize = 16;
const INTEGERS: usize = 64;
const ECHO: &str = "echo";

/// Encoded pictures, and so many samples of them.
struct Pictures {
    encoded: Vec<Vec<u8>>,
    samples: usize,
}

impl Pictures {
    /// Smooth shapes with some grain, as photographs have.
    fn new(samples: usize) -> Self {
        let encoded = (0..32).map(|number| {
            let picture = image::RgbImage::from_fn(320, 240, |x, y| {
                let wave = |step: f32| {
                    ((x as f32 / step + number as f32).sin() + (y as f32 / step).cos()) * 60.0 + 120.0
                };
                let grain = ((x * 31 + y * 17 + number * 7) % 23) as f32;
                image::Rgb(
                    [wave(37.0) + grain, wave(53.0) + grain, wave(71.0) - grain].map(|value| value as u8),
                )
            });
            let mut bytes = Cursor::new(Vec::new());
            picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
            bytes.into_inner()
        });
        Self { encoded: encoded.collect(), samples }
    }

    fn decoded(&self, index: usize) -> Result<Vec<u8>, BoxError> {
        let picture = image::load_from_memory(&self.encoded[index % self.encoded.len()])?;
        Ok(picture.resize_exact(SIDE, SIDE, FilterType::Triangle).into_rgb8().into_raw())
    }
}

impl Dataset for Pictures {
    type Sample = Sample;

    fn len(&self) -> usize {
        self.samples
    }

    fn get(&self, index: usize) -> Result<Sample, BoxError> {
        let pixels = Array::from_vec([SIDE as usize, SIDE as usize, 3], self.decoded(index)?)?;
        Ok(Sample::new().with("pixels", pixels).with("label", index as i64))
    }
}

#[derive(Serialize, Deserialize)]
struct Integers(usize);

impl Dataset for Integers {
    type Sample = i64;

    fn len(&self) -> usize {
        self.0
    }

    fn get(&self, index: usize) -> Result<i64, BoxError> {
        Ok(index as i64)
    }
}

#[derive(Serialize, Deserialize)]
struct Flat;

impl Collate<i64> for Flat {
    type Batch = OwnedArray<i64>;

    fn collate(&self, samples: Samples<'_, i64>, page: &mut BatchWriter<'_>) -> Result<(), BoxError> {
        let integers = page.add::<i64>("integers", [samples.len()])?;
        for (place, sample) in page.slice_mut(integers)?.iter_mut().zip(samples) {
            *place = sample?;
        }
        Ok(())
    }

    fn open(&self, mut batch: Batch) -> Result<OwnedArray<i64>, BoxError> {
        Ok(batch.take("integers")?)
    }
}

/// What a training step would read.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|value| u64::from(*value)).sum()
}

/// Seconds of an epoch by the loader; its workers run already, as a pool's threads do.
fn loader_epoch(loader: &DataLoader, expected: u64) -> f64 {
    let start = Instant::now();
    let mut light = 0;
    for batch in loader {
        light += sum(batch.unwrap().array::<u8>("pixels").unwrap().as_slice());
    }
    assert_eq!(light, expected);
    start.elapsed().as_secs_f64()
}

/// Seconds of the same by hand; and what it has seen.
fn rayon_epoch(pool: &rayon::ThreadPool, pictures: &Pictures) -> (f64, u64) {
    let indices: Vec<usize> = (0..pictures.samples).collect();
    let start = Instant::now();
    let light = pool.install(|| {
        let batch = |batch: &[usize]| {
            let (mut pixels, mut labels) = (vec![0; batch.len() * PIXELS], vec![0; batch.len()]);
            for (row, index) in batch.iter().enumerate() {
                pixels[row * PIXELS..][..PIXELS].copy_from_slice(&pictures.decoded(*index).unwrap());
                labels[row] = *index as i64;
            }
            black_box(&labels);
            sum(&pixels)
        };
        indices.par_chunks(BATCH_SIZE).map(batch).sum()
    });
    (start.elapsed().as_secs_f64(), light)
}

/// Seconds for each batch of 64 integers, from the first to the last of an epoch.
fn integers_epoch(loader: &DataLoader<OwnedArray<i64>>) -> f64 {
    let mut batches = loader.iter().unwrap();
    batches.next().unwrap().unwrap();
    let (mut count, mut total, start) = (0u32, 0, Instant::now());
    for batch in batches {
        total += batch.unwrap()[0];
        count += 1;
    }
    let seconds = start.elapsed().as_secs_f64() / f64::from(count);
    assert_eq!(total, (1..=i64::from(count)).sum::<i64>() * INTEGERS as i64);
    seconds
}

/// Seconds for each round trip between two threads over channels.
fn channel_round_trip(trips: u32) -> f64 {
    let (ask, asked) = crossbeam_channel::bounded::<u64>(1);
    let (answer, answered) = crossbeam_channel::bounded::<u64>(1);
    std::thread::scope(|scope| {
        scope.spawn(move || asked.iter().try_for_each(|number| answer.send(number)));
        ask.send(0).unwrap();
        answered.recv().unwrap();
        let start = Instant::now();
        for number in 0..u64::from(trips) {
            ask.send(number).unwrap();
            assert_eq!(answered.recv().unwrap(), number);
        }
        drop(ask);
        start.elapsed().as_secs_f64() / f64::from(trips)
    })
}

/// Seconds for each round trip of eight bytes between two processes over a pair of Unix sockets.
fn socket_round_trip(trips: u32) -> f64 {
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let mut echo = Command::new("/proc/self/exe");
    let mut echo = echo.arg(ECHO).stdin(Stdio::from(OwnedFd::from(theirs))).spawn().unwrap();
    let mut trip = |number: u64| {
        ours.write_all(&number.to_ne_bytes()).unwrap();
        let mut answer = [0; 8];
        ours.read_exact(&mut answer).unwrap();
        assert_eq!(u64::from_ne_bytes(answer), number);
    };
    trip(0);
    let start = Instant::now();
    (0..u64::from(trips)).for_each(&mut trip);
    let seconds = start.elapsed().as_secs_f64() / f64::from(trips);
    drop(ours);
    echo.wait().unwrap();
    seconds
}

/// The other end of [`socket_round_trip`].
fn echo() {
    let socket = std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().unwrap();
    let mut socket = UnixStream::from(socket);
    let mut bytes = [0; 8];
    while socket.read_exact(&mut bytes).is_ok() {
        socket.write_all(&bytes).unwrap();
    }
}

fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// One comparison: ours and theirs in every round.
struct Comparison {
    name: &'static str,
    most: f64,
    rounds: Vec<(f64, f64)>,
}

impl Comparison {
    fn print(&self) {
        let (ours, theirs) =
            (self.rounds.iter().map(|round| round.0), self.rounds.iter().map(|round| round.1));
        let (ours, theirs) = (median(ours), median(theirs));
        let (ratio, most) = (ours / theirs, self.most);
        let Self { name, rounds, .. } = self;
        println!(
            r#"{{"measure":"{name}","ours_s":{ours:.3e},"theirs_s":{theirs:.3e},"ratio":{ratio:.3},"most":{most},"holds":{},"rounds":{}}}"#,
            ratio <= most,
            rounds.len()
        );
    }
}

fn main() {
    WorkerEntry::new().dataset_with::<Integers, Flat>().enter();
    if std::env::args().nth(1).as_deref() == Some(ECHO) {
        return echo();
    }
    // `cargo test --all-targets` runs it, too: then only to see that it works.
    let real = std::env::args().any(|argument| argument == "--bench");
    let (rounds, trips, pictures) =
        if real { (15, 5000, Pictures::new(640)) } else { (1, 50, Pictures::new(32)) };

    let pool = rayon::ThreadPoolBuilder::new().num_threads(THREADS).build().unwrap();
    let pictures = std::sync::Arc::new(pictures);
    let loader = DataLoader::builder(pictures.clone()).batch_size(BATCH_SIZE).num_workers(THREADS as u32);
    let loader = loader.persistent_workers(true).build().unwrap();
    let integers = || {
        let builder = DataLoader::builder(Integers((trips as usize + 1) * INTEGERS)).collate(Flat);
        builder.batch_size(INTEGERS).num_workers(1).persistent_workers(true)
    };
    let (threads, processes) = (integers().build().unwrap(), integers().processes().build().unwrap());

    let (_, expected) = rayon_epoch(&pool, &pictures);
    loader_epoch(&loader, expected);
    let comparison = |name, most| Comparison { name, most, rounds: Vec::new() };
    let mut all = [comparison("rayon", 1.1), comparison("threads", 5.0), comparison("processes", 5.0)];
    for _ in 0..rounds {
        all[0].rounds.push((loader_epoch(&loader, expected), rayon_epoch(&pool, &pictures).0));
        all[1].rounds.push((integers_epoch(&threads), channel_round_trip(trips)));
        all[2].rounds.push((integers_epoch(&processes), socket_round_trip(trips)));
    }
    all.iter().for_each(Comparison::print);
}
