//! Iterates over a table in a memory map, and goes on where it was broken off:
//! `cargo run --release --example resume -- FOLDER [STOP_AFTER_BATCHES]`
//!
//! FOLDER gets the table, if it is not there, and the loader's state, a line of JSON. Stop the program whenever you like, also
//! with Ctrl-C, and start it again: every row is read once an epoch, in the order that the seed and the epoch fix.
#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use forebay::{Batch, BatchWriter, BoxError, Collate, DataLoader, Dataset, LoaderState, OwnedArray, Samples};
use mmap_io::MemoryMappedFile;

const ROWS: usize = 200_000;
const COLUMNS: usize = 64;
const ROW_BYTES: usize = COLUMNS * size_of::<f32>();
const EPOCHS: u64 = 3;
const BATCH_SIZE: usize = 1000;

/// Rows of numbers, as they lie in a file.
struct Table {
    map: MemoryMappedFile,
}

impl Dataset for Table {
    type Sample = usize;

    fn len(&self) -> usize {
        self.map.len() as usize / ROW_BYTES
    }

    /// The row stays where it is: the collate takes it out of the map straight into the batch.
    fn get(&self, index: usize) -> Result<usize, BoxError> {
        Ok(index)
    }
}

/// Copies rows of a table into a batch. It shares the map with the dataset.
struct Rows(std::sync::Arc<Table>);

/// Rows of the table, and their numbers.
struct RowBatch {
    rows: OwnedArray<f32>,
    numbers: OwnedArray<u64>,
}

impl Collate<usize> for Rows {
    type Batch = RowBatch;

    fn collate(&self, samples: Samples<'_, usize>, page: &mut BatchWriter<'_>) -> Result<(), BoxError> {
        let rows = page.add::<f32>("rows", [samples.len(), COLUMNS])?;
        let numbers = page.add::<u64>("numbers", [samples.len()])?;
        for (place, number) in samples.enumerate() {
            let number = number?;
            let row = self.0.map.as_slice((number * ROW_BYTES) as u64, ROW_BYTES as u64)?;
            page.write(rows, place * COLUMNS, bytemuck::cast_slice::<u8, f32>(&row))?;
            page.write(numbers, place, &[number as u64])?;
        }
        Ok(())
    }

    fn open(&self, mut batch: Batch) -> Result<RowBatch, BoxError> {
        Ok(RowBatch { rows: batch.take("rows")?, numbers: batch.take("numbers")? })
    }
}

/// Where to go on: kept in a file that is never half written.
struct Saved(PathBuf);

impl Saved {
    fn read(&self) -> Result<Option<LoaderState>, BoxError> {
        match fs::read_to_string(&self.0) {
            Ok(text) => Ok(Some(serde_json::from_str(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn write(&self, state: &LoaderState) -> Result<(), BoxError> {
        let new = self.0.with_extension("new");
        fs::write(&new, serde_json::to_string(state)?)?;
        Ok(fs::rename(new, &self.0)?)
    }
}

/// Writes a table in which every number of row `n` is `n`, unless there is one.
fn table(path: &Path) -> Result<Table, BoxError> {
    if !path.exists() {
        let unfinished = path.with_extension("new");
        let mut file = BufWriter::new(File::create(&unfinished)?);
        for row in 0..ROWS {
            file.write_all(bytemuck::cast_slice(&[row as f32; COLUMNS]))?;
        }
        file.into_inner()?.sync_all()?;
        fs::rename(unfinished, path)?;
    }
    Ok(Table { map: MemoryMappedFile::open_ro(path)? })
}

fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: resume FOLDER [STOP_AFTER_BATCHES]")?);
    let mut left: usize = arguments.next().map_or(Ok(usize::MAX), |text| text.parse())?;
    fs::create_dir_all(&folder)?;

    let table = std::sync::Arc::new(table(&folder.join("table.f32"))?);
    let builder = DataLoader::builder(table.clone()).collate(Rows(table)).batch_size(BATCH_SIZE);
    let loader = builder.shuffle(true).seed(0).num_workers(2).persistent_workers(true).build()?;

    let saved = Saved(folder.join("state.json"));
    let mut begun = saved.read()?;
    for epoch in begun.as_ref().map_or(0, |state| state.epoch)..EPOCHS {
        let mut batches = match begun.take() {
            Some(state) => loader.resume(&state)?,
            None => loader.epoch(epoch)?,
        };
        println!("epoch {epoch}: beginning with row {} of the order", batches.state()?.samples);
        let mut sum = 0.0;
        while let Some(rows) = batches.next() {
            let rows = rows?;
            assert!(
                rows.rows
                    .chunks(COLUMNS)
                    .zip(&rows.numbers[..])
                    .all(|(row, number)| row[0] == *number as f32)
            );
            sum += rows.rows.iter().map(|value| f64::from(*value)).sum::<f64>();
            saved.write(&batches.state()?)?;
            left -= 1;
            if left == 0 {
                println!("stopped in epoch {epoch}, after row {}", batches.state()?.samples);
                return Ok(());
            }
        }
        println!("epoch {epoch}: read to its end, sum {sum:.0}");
    }
    fs::remove_file(&saved.0)?;
    Ok(())
}
