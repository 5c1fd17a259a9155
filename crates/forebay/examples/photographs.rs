//! Loads a folder of photographs, one subfolder for each class, and tells how fast that went and where the time went:
//! `cargo run --release --example photographs -- FOLDER [WORKERS] [--processes]`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use forebay::{Array, BoxError, DataLoader, Dataset, Sample, WorkerInfo};
use image::imageops::FilterType;
use serde::{Deserialize, Serialize};

const SIDE: u32 = 224;
const BATCH_SIZE: usize = 64;

/// Photographs and their classes. A worker process gets it serialised: names of files, not what is in them.
#[derive(Serialize, Deserialize)]
struct Photographs {
    classes: Vec<String>,
    files: Vec<(PathBuf, usize)>,
}

thread_local! {
    /// Which worker this thread is, be it one of this program's or the only one of a worker process.
    static WORKER: Cell<u32> = const { Cell::new(0) };
}

impl Photographs {
    fn of(folder: &Path) -> Result<Self, Box<dyn Error>> {
        let mut classes = entries(folder)?;
        classes.retain(|path| path.is_dir());
        let mut files = Vec::new();
        for (class, path) in classes.iter().enumerate() {
            files.extend(
                entries(path)?.into_iter().filter(|path| is_photograph(path)).map(|path| (path, class)),
            );
        }
        if files.is_empty() {
            return Err(format!("no subfolder of {} has .jpg, .jpeg or .png files", folder.display()).into());
        }
        let names =
            classes.iter().filter_map(|path| path.file_name()).map(|name| name.to_string_lossy().into());
        Ok(Self { classes: names.collect(), files })
    }
}

/// What is in a folder, in an order that does not depend on the file system.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let listing =
        fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut paths = listing.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    paths.sort();
    Ok(paths)
}

fn is_photograph(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_ascii_lowercase());
    extension.is_some_and(|extension| extension == "jpg" || extension == "jpeg" || extension == "png")
}

impl Dataset for Photographs {
    type Sample = Sample;

    fn len(&self) -> usize {
        self.files.len()
    }

    fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError> {
        WORKER.set(info.id as u32);
        Ok(())
    }

    fn get(&self, index: usize) -> Result<Sample, BoxError> {
        let start = Instant::now();
        let (path, class) = &self.files[index];
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let read = start.elapsed();
        let photograph =
            image::load_from_memory(&bytes).map_err(|error| format!("{}: {error}", path.display()))?;
        let decoded = start.elapsed();
        let pixels = photograph.resize_exact(SIDE, SIDE, FilterType::Triangle).into_rgb8().into_raw();
        let image = Array::from_vec([SIDE as usize, SIDE as usize, 3], pixels)?;
        // Where the time went travels with the sample: the batch is all that a worker process and this one share.
        let parts = [read, decoded - read, start.elapsed() - decoded].map(|part| part.as_secs_f32());
        let sample = Sample::new().with("image", image).with("label", *class as i64);
        Ok(sample.with("worker", WORKER.get()).with("parts", parts.to_vec()))
    }
}

fn main() -> ExitCode {
    // In a worker process this line does the worker's work, and never returns.
    forebay::worker_entry::<Photographs>();
    let (flags, arguments): (Vec<_>, Vec<_>) =
        std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    let all = || std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let (folder, workers) = match arguments.as_slice() {
        [folder] => (folder, Some(all())),
        [folder, workers] => (folder, workers.parse().ok()),
        _ => (&String::new(), None),
    };
    let processes = match flags.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Some(false),
        ["--processes"] => Some(true),
        _ => None,
    };
    let (Some(workers), Some(processes)) = (workers, processes) else {
        eprintln!(
            "usage: photographs FOLDER [WORKERS] [--processes]\n\nFOLDER has one subfolder of JPEG or PNG files for each \
             class."
        );
        return ExitCode::from(2);
    };
    match load(Path::new(folder), workers, processes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(error) = cause {
                eprintln!("  because: {error}");
                cause = error.source();
            }
            ExitCode::FAILURE
        }
    }
}

/// One epoch; every byte of every batch is read, as a training step would.
fn load(folder: &Path, workers: u32, processes: bool) -> Result<(), Box<dyn Error>> {
    let photographs = Photographs::of(folder)?;
    let kind = if processes { "processes" } else { "threads" };
    println!(
        "{} photographs of {} classes, {workers} worker {kind}",
        photographs.files.len(),
        photographs.classes.len()
    );
    let builder =
        DataLoader::builder(photographs).batch_size(BATCH_SIZE).shuffle(true).seed(0).num_workers(workers);
    let loader = if processes { builder.processes() } else { builder }.build()?;

    let start = Instant::now();
    let mut batches = loader.iter()?;
    let (mut images, mut light, mut first, mut spent) = (0, 0, None, Spent::default());
    loop {
        let asked = Instant::now();
        let Some(batch) = batches.next() else { break };
        let batch = batch?;
        let given = Instant::now();
        spent.waiting += given - asked;
        first.get_or_insert_with(|| start.elapsed());
        images += batch.len();
        light += batch.array::<u8>("image")?.as_slice().iter().map(|value| u64::from(*value)).sum::<u64>();
        spent.training += given.elapsed();
        spent.count(batch.array::<u32>("worker")?.as_slice(), batch.array::<f32>("parts")?.as_slice());
    }
    let all = start.elapsed();

    println!("{:.1} images/s ({images} in {:.2} s)", images as f64 / all.as_secs_f64(), all.as_secs_f64());
    println!("first batch after {:.3} s", first.unwrap_or(all).as_secs_f64());
    println!("mean brightness {:.2} of 255", light as f64 / (images * (SIDE * SIDE * 3) as usize) as f64);
    spent.print(all);
    Ok(())
}

/// Where the time of an epoch went.
#[derive(Default)]
struct Spent {
    waiting: Duration,
    training: Duration,
    /// Of each worker: samples, and seconds of reading, decoding and resizing.
    workers: BTreeMap<u32, (usize, [f64; 3])>,
}

impl Spent {
    fn count(&mut self, workers: &[u32], parts: &[f32]) {
        for (worker, parts) in workers.iter().zip(parts.chunks_exact(3)) {
            let (samples, sums) = self.workers.entry(*worker).or_default();
            *samples += 1;
            sums.iter_mut().zip(parts).for_each(|(sum, part)| *sum += f64::from(*part));
        }
    }

    fn print(&self, all: Duration) {
        let share = |seconds: f64| format!("{seconds:7.2} s {:5.1} %", 100.0 * seconds / all.as_secs_f64());
        println!("this program   waiting for batches  {}", share(self.waiting.as_secs_f64()));
        println!("               using them           {}", share(self.training.as_secs_f64()));
        for (worker, (samples, [read, decode, resize])) in &self.workers {
            println!("worker {worker:<7} reading              {}  ({samples} samples)", share(*read));
            println!("               decoding             {}", share(*decode));
            println!("               resizing             {}", share(*resize));
            println!(
                "               collating and idle   {}",
                share(all.as_secs_f64() - read - decode - resize)
            );
        }
    }
}
