//! Loads a folder of photographs, one subfolder for each class, and tells how fast that went:
//! `cargo run --release --example photographs -- FOLDER [THREADS]`
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use forebay::{Array, BoxError, DataLoader, Dataset, Sample};
use image::imageops::FilterType;

const SIDE: u32 = 224;
const BATCH_SIZE: usize = 64;

/// Photographs and their classes.
struct Photographs {
    classes: Vec<String>,
    files: Vec<(PathBuf, usize)>,
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

    fn get(&self, index: usize) -> Result<Sample, BoxError> {
        let (path, class) = &self.files[index];
        let photograph = image::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let pixels = photograph.resize_exact(SIDE, SIDE, FilterType::Triangle).into_rgb8().into_raw();
        let image = Array::from_vec([SIDE as usize, SIDE as usize, 3], pixels)?;
        Ok(Sample::new().with("image", image).with("label", *class as i64))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let all = || std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    let (folder, threads) = match arguments.as_slice() {
        [folder] => (folder, Some(all())),
        [folder, threads] => (folder, threads.parse().ok()),
        _ => (&String::new(), None),
    };
    let Some(threads) = threads else {
        eprintln!(
            "usage: photographs FOLDER [THREADS]\n\nFOLDER has one subfolder of JPEG or PNG files for each class."
        );
        return ExitCode::from(2);
    };
    match load(Path::new(folder), threads) {
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
fn load(folder: &Path, threads: u32) -> Result<(), Box<dyn Error>> {
    let photographs = Photographs::of(folder)?;
    println!(
        "{} photographs of {} classes, {threads} threads",
        photographs.files.len(),
        photographs.classes.len()
    );
    let loader =
        DataLoader::builder(photographs).batch_size(BATCH_SIZE).shuffle(0).num_workers(threads).build()?;

    let start = Instant::now();
    let mut batches = loader.iter()?;
    let (mut images, mut waited, mut first, mut light) = (0, Duration::ZERO, None, 0);
    loop {
        let asked = Instant::now();
        let Some(batch) = batches.next() else { break };
        let batch = batch?;
        waited += asked.elapsed();
        first.get_or_insert_with(|| start.elapsed());
        images += batch.len();
        light += batch.array::<u8>("image")?.as_slice().iter().map(|value| u64::from(*value)).sum::<u64>();
    }
    let all = start.elapsed();

    println!("{:.1} images/s ({images} in {:.2} s)", images as f64 / all.as_secs_f64(), all.as_secs_f64());
    println!("first batch after {:.3} s", first.unwrap_or(all).as_secs_f64());
    println!("{:.1} % of the time waiting for a batch", 100.0 * waited.as_secs_f64() / all.as_secs_f64());
    println!("mean brightness {:.2} of 255", light as f64 / (images * (SIDE * SIDE * 3) as usize) as f64);
    Ok(())
}
