//! What a loader promises when its workers are processes. Each is this test program, started again, with the arguments by
//! which the harness calls nothing but `the_workers_begin_here`.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::collections::BTreeSet;
use std::error::Error as _;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use forebay::{
    Array, Batch, BatchWriter, BoxError, Builder, Collate, DataLoader, Dataset, Error, Indexed,
    IterableDataset, OwnedArray, RemoteError, Sample, Samples, Stream, WorkerEntry, WorkerInfo,
};
use forebay_shm::sys;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Deserializer, Serialize};

mod common;

/// One test at a time counts the children and descriptors of this process, where the harness runs all in one.
static ALONE: Mutex<()> = Mutex::new(());

fn watched(body: impl FnOnce() + Send + 'static) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    common::watched(body);
}

/// What a dataset does at its special index.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Deed {
    Nothing,
    Fail,
    Panic,
    Abort,
    Exit(i32),
    /// Waits for ever, after it has made this file.
    Hang(PathBuf),
}

/// Numbers that know their process.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Numbers {
    len: usize,
    special: usize,
    deed: Deed,
    #[serde(skip)]
    seed: OnceLock<u64>,
}

fn numbers(len: usize) -> Numbers {
    doing(len, 0, Deed::Nothing)
}

fn doing(len: usize, special: usize, deed: Deed) -> Numbers {
    Numbers { len, special, deed, seed: OnceLock::new() }
}

#[derive(Debug, thiserror::Error)]
#[error("record {0} is unreadable")]
struct Unreadable(usize, #[source] std::io::Error);

impl Dataset for Numbers {
    type Sample = Sample;

    fn len(&self) -> usize {
        self.len
    }

    fn get(&self, index: usize) -> Result<Sample, BoxError> {
        if index == self.special {
            match &self.deed {
                Deed::Nothing => {}
                Deed::Fail => return Err(Unreadable(index, std::io::Error::other("bad sector")).into()),
                Deed::Panic => panic!("no record {index}"),
                Deed::Abort => std::process::abort(),
                Deed::Exit(code) => std::process::exit(*code),
                Deed::Hang(begun) => {
                    std::fs::write(begun, std::process::id().to_string())?;
                    std::thread::park();
                }
            }
        }
        let image = (0..2000).map(|place| (index * 2000 + place) as f32).collect::<Vec<_>>();
        Ok(Sample::new()
            .with("index", index as u64)
            .with("process", std::process::id())
            .with("seed", self.seed.get().copied().unwrap_or(0))
            .with("image", Array::from_vec([20, 100], image)?))
    }

    fn init_worker(&self, info: &WorkerInfo) -> Result<(), BoxError> {
        self.seed.set(info.seed).map_err(|_| "initialised twice".into())
    }
}

/// What a worker finds around itself.
#[derive(Serialize, Deserialize)]
struct Surroundings;

impl Dataset for Surroundings {
    type Sample = Sample;

    fn len(&self) -> usize {
        1
    }

    fn get(&self, _index: usize) -> Result<Sample, BoxError> {
        let input = std::io::stdin().read_to_end(&mut Vec::new())?;
        // A child of a worker is no worker: it runs this test, and says so.
        let child =
            Command::new("/proc/self/exe").args(["--exact", "not_a_worker", "--nocapture"]).output()?;
        let said = String::from_utf8_lossy(&child.stdout).contains("I am not a worker");
        // A signal from the terminal, like that of Ctrl-C, goes to a whole process group.
        let group = rustix::process::getpgrp().as_raw_pid() as u32;
        let sample = Sample::new().with("input", input as u64).with("said", said);
        let nested = DataLoader::builder(numbers(1)).num_workers(1).processes().build().unwrap_err();
        let nested = nested.is_config() && nested.to_string().contains("worker process cannot have");
        Ok(sample.with("own group", group == std::process::id()).with("nested refused", nested))
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "another test listens")]
fn not_a_worker() {
    the_workers_begin_here();
    println!("I am not a worker");
}

/// Can be written and not read.
#[derive(Serialize)]
struct OneWay;

impl<'de> Deserialize<'de> for OneWay {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("this way only"))
    }
}

impl Dataset for OneWay {
    type Sample = Sample;

    fn len(&self) -> usize {
        1
    }

    fn get(&self, _index: usize) -> Result<Sample, BoxError> {
        Ok(Sample::new())
    }
}

/// A stream of numbers, shared out among the workers.
#[derive(Serialize, Deserialize)]
struct Shares(i64);

impl IterableDataset for Shares {
    type Sample = i64;

    fn iter<'a>(&'a self, info: &WorkerInfo) -> Result<Stream<'a, i64>, BoxError> {
        Ok(Box::new((0..self.0).skip(info.id).step_by(info.num_workers).map(Ok)))
    }
}

#[derive(Serialize, Deserialize)]
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

    fn open(&self, mut batch: Batch) -> Result<OwnedArray<i64>, BoxError> {
        Ok(batch.take("numbers")?)
    }
}

#[test]
fn the_workers_begin_here() {
    let entry = WorkerEntry::new().dataset::<Numbers>().dataset::<Surroundings>().dataset::<OneWay>();
    namesakes(entry).0.streaming_with::<Shares, Flat>().enter();
}

type Build = fn() -> Result<DataLoader, Error>;

/// A dataset of a type that is called as that of every other use of this macro in the same function.
macro_rules! namesake {
    ($entry:expr, $number:literal) => {{
        #[derive(Serialize, Deserialize)]
        struct Namesake;

        impl Dataset for Namesake {
            type Sample = Sample;

            fn len(&self) -> usize {
                1
            }

            fn get(&self, _index: usize) -> Result<Sample, BoxError> {
                Ok(Sample::new().with("number", $number))
            }
        }

        let build = || DataLoader::builder(Namesake).num_workers(1).processes().process_args(ARGS).build();
        ($entry.dataset::<Namesake>(), build as Build)
    }};
}

/// The entry, and loaders of two types of one name.
fn namesakes(entry: WorkerEntry) -> (WorkerEntry, [Build; 2]) {
    let (entry, one) = namesake!(entry, 1i64);
    let (entry, two) = namesake!(entry, 2i64);
    (entry, [one, two])
}

const ARGS: [&str; 3] = ["--exact", "the_workers_begin_here", "--nocapture"];

fn in_processes(dataset: Numbers) -> Builder<Indexed<Numbers>> {
    the_workers_begin_here();
    DataLoader::builder(dataset).num_workers(2).processes().process_args(ARGS)
}

fn column<E: forebay::Element>(batch: &Batch, name: &str) -> Vec<E> {
    batch.array::<E>(name).unwrap().as_slice().to_vec()
}

/// The processes of this program's children.
fn children() -> Vec<String> {
    let path = format!("/proc/self/task/{}/children", std::process::id());
    let mut all = std::fs::read_to_string(path).unwrap();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        all += " ";
        all += &std::fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default();
    }
    all.split_whitespace().map(String::from).collect()
}

#[test]
fn batches_of_processes_are_those_of_threads() {
    watched(|| {
        for persistent in [false, true] {
            let builder =
                in_processes(numbers(50)).batch_size(8).shuffle(true).seed(3).persistent_workers(persistent);
            let (processes, alone) = (builder.build().unwrap(), DataLoader::builder(numbers(50)));
            let alone = alone.batch_size(8).shuffle(true).seed(3).build().unwrap();
            for _ in 0..2 {
                for (one, other) in processes.into_iter().zip(&alone) {
                    let (one, other) = (one.unwrap(), other.unwrap());
                    assert!(!one.was_copied());
                    assert_eq!(column::<u64>(&one, "index"), column::<u64>(&other, "index"));
                    assert_eq!(column::<f32>(&one, "image"), column::<f32>(&other, "image"));
                    let makers: BTreeSet<u32> = column(&one, "process").into_iter().collect();
                    assert!(makers.len() == 1 && !makers.contains(&std::process::id()));
                }
            }
        }
    });
}

#[test]
fn types_of_one_name_are_told_apart() {
    watched(|| {
        the_workers_begin_here();
        let numbers = namesakes(WorkerEntry::new()).1.map(|build| {
            let loader = build().unwrap();
            let batch = loader.into_iter().next().unwrap().unwrap();
            column::<i64>(&batch, "number")
        });
        assert_eq!(numbers, [[1], [2]]);
    });
}

#[test]
fn an_index_that_is_no_place_at_all_is_an_error_that_names_it() {
    watched(|| {
        the_workers_begin_here();
        let builder = DataLoader::builder(numbers(3)).num_workers(1).sampler(|_| vec![0, usize::MAX, 1]);
        let loader = builder.processes().process_args(ARGS).build().unwrap();
        let batches: Vec<_> = loader.into_iter().collect();
        let Err(error) = &batches[1] else { panic!("{batches:?}") };
        assert!(error.is_index() && error.batch() == Some(1) && error.index() == Some(usize::MAX), "{error}");
        assert_eq!(batches.iter().filter(|batch| batch.is_ok()).count(), 2);
    });
}

#[test]
fn a_stream_is_read_by_processes_with_a_collate_of_its_own() {
    watched(|| {
        the_workers_begin_here();
        let builder = DataLoader::streaming(Shares(10)).collate(Flat).batch_size(2).num_workers(2);
        let loader = builder.processes().process_args(ARGS).build().unwrap();
        let batches: Vec<_> = loader.into_iter().map(|batch| batch.unwrap().to_vec()).collect();
        assert_eq!(batches, [vec![0, 2], vec![1, 3], vec![4, 6], vec![5, 7], vec![8], vec![9]]);
    });
}

/// The processes that made the batches of each of three epochs.
fn makers(persistent: bool) -> Vec<BTreeSet<u32>> {
    let loader = in_processes(numbers(8)).persistent_workers(persistent).build().unwrap();
    let maker = |batch: Result<Batch, Error>| column::<u32>(&batch.unwrap(), "process")[0];
    (0..3).map(|_| loader.into_iter().map(maker).collect()).collect()
}

#[test]
fn persistent_processes_stay_from_epoch_to_epoch() {
    watched(|| {
        let epochs = makers(true);
        assert_eq!(epochs[0].len(), 2);
        assert!(epochs.iter().all(|processes| *processes == epochs[0]), "{epochs:?}");
    });
}

#[test]
fn other_processes_are_new_in_every_epoch() {
    watched(|| {
        let all: BTreeSet<u32> = makers(false).into_iter().flatten().collect();
        assert_eq!(all.len(), 6);
    });
}

#[test]
fn every_process_is_initialised_with_a_seed_of_its_own() {
    watched(|| {
        let loader = in_processes(numbers(4)).seed(9).build().unwrap();
        let seeds: Vec<u64> = loader.into_iter().map(|batch| column(&batch.unwrap(), "seed")[0]).collect();
        let seed = |worker| WorkerInfo::new(worker, 2, 9, 0).seed;
        assert_eq!(seeds, [seed(0), seed(1), seed(0), seed(1)]);
    });
}

/// The one error of an epoch of five batches of two, in the place of index 5.
fn only_error(deed: Deed) -> Error {
    let loader = in_processes(doing(10, 5, deed)).batch_size(2).build().unwrap();
    let mut batches: Vec<_> = loader.into_iter().collect();
    assert!(matches!(batches.as_slice(), [Ok(_), Ok(_), Err(_), Ok(_), Ok(_)]), "{batches:?}");
    let error = batches.remove(2).unwrap_err();
    assert_eq!((error.batch(), error.worker(), error.index()), (Some(2), Some(0), Some(5)));
    error
}

#[test]
fn an_error_of_the_dataset_is_told_with_all_its_causes() {
    watched(|| {
        let error = only_error(Deed::Fail);
        assert!(error.is_dataset());
        let source = error.source().unwrap().downcast_ref::<RemoteError>().unwrap();
        assert_eq!(source.to_string(), "record 5 is unreadable");
        assert_eq!(source.source().unwrap().to_string(), "bad sector");
    });
}

#[test]
fn a_panic_of_the_dataset_is_an_error_in_the_place_of_the_batch() {
    watched(|| {
        let error = only_error(Deed::Panic);
        assert!(error.is_panic() && error.to_string().contains("no record 5"), "{error}");
    });
}

/// The last item of an epoch that ends with a dead worker.
fn death(deed: Deed) -> String {
    let loader = in_processes(doing(20, 6, deed)).batch_size(2).build().unwrap();
    let batches: Vec<_> = loader.into_iter().collect();
    let Some(Err(error)) = batches.last() else { panic!("{batches:?}") };
    assert!(error.is_worker_died());
    assert_eq!((error.worker(), error.batch()), (Some(1), None));
    assert!(children().is_empty(), "{:?}", children());
    let text = error.to_string();
    assert!(text.contains("worker 1 (process ") && text.contains("batch 3 (indices 6, 7)"), "{text}");
    text
}

#[test]
fn a_worker_that_crashes_is_an_error_that_tells_the_signal() {
    watched(|| {
        let text = death(Deed::Abort);
        assert!(text.contains("killed by signal 6") && text.contains("likely a crash"), "{text}");
    });
}

#[test]
fn a_worker_that_exits_is_an_error_that_tells_the_code() {
    watched(|| {
        let text = death(Deed::Exit(3));
        assert!(text.contains("exited with code 3") && text.contains("has ended the process"), "{text}");
    });
}

#[test]
fn an_epoch_that_a_workers_death_has_ended_goes_on_from_its_state() {
    watched(|| {
        let loader = |deed| in_processes(doing(20, 12, deed)).batch_size(2).build().unwrap();
        let fatal = loader(Deed::Abort);
        let mut batches = fatal.iter().unwrap();
        let index = |batch: &Batch| column::<u64>(batch, "index");
        let mut seen: Vec<u64> =
            batches.by_ref().map_while(Result::ok).flat_map(|batch| index(&batch)).collect();
        assert!(seen.len() < 13 && batches.next().is_none());
        let state = batches.state().unwrap();
        assert_eq!(state.samples, seen.len() as u64);
        let healthy = loader(Deed::Nothing);
        seen.extend(healthy.resume(&state).unwrap().flat_map(|batch| index(&batch.unwrap())));
        assert_eq!(seen, (0..20).collect::<Vec<_>>());
    });
}

/// A file in which a process notes its number; and the number, once it is there.
struct Note(PathBuf);

impl Note {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("forebay-test-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    fn wait(&self) -> u32 {
        loop {
            match std::fs::read_to_string(&self.0).ok().and_then(|text| text.parse().ok()) {
                Some(process) => return process,
                None => std::thread::yield_now(),
            }
        }
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn kill(process: u32) {
    let process = rustix::process::Pid::from_raw(process as i32).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_worker_that_is_killed_is_an_error_that_tells_the_likely_cause() {
    watched(|| {
        let note = Note::new("killed");
        let loader = in_processes(doing(20, 0, Deed::Hang(note.0.clone()))).persistent_workers(true);
        let loader = loader.build().unwrap();
        let mut batches = loader.iter().unwrap();
        kill(note.wait());
        let error = batches.find_map(Result::err).unwrap();
        assert!(error.is_worker_died());
        let text = error.to_string();
        assert!(text.contains("killed by signal 9") && text.contains("out-of-memory"), "{text}");
        assert!(text.contains("batch 0 (indices 0), batch 2 (indices 2)"), "{text}");
        assert!(batches.next().is_none());
    });
}

#[test]
fn after_a_death_the_next_epoch_has_new_workers() {
    watched(|| {
        let note = Note::new("next");
        let deed = Deed::Hang(note.0.clone());
        let loader = in_processes(doing(20, 0, deed)).persistent_workers(true).build().unwrap();
        for _ in 0..2 {
            let mut batches = loader.epoch(0).unwrap();
            kill(note.wait());
            assert!(batches.find_map(Result::err).unwrap().is_worker_died());
            std::fs::remove_file(&note.0).unwrap();
        }
        let mut batches = loader.epoch_from(0, 1).unwrap();
        assert!(batches.all(|batch| batch.is_ok()));
    });
}

#[test]
fn a_worker_that_does_not_stop_is_killed() {
    watched(|| {
        let note = Note::new("stuck");
        let loader = in_processes(doing(20, 0, Deed::Hang(note.0.clone()))).build().unwrap();
        let batches = loader.iter().unwrap();
        note.wait();
        drop(batches);
        assert!(children().is_empty(), "{:?}", children());
    });
}

#[test]
fn a_stuck_process_is_named_after_the_timeout() {
    watched(|| {
        let note = Note::new("timeout");
        let builder =
            in_processes(doing(20, 0, Deed::Hang(note.0.clone()))).timeout(Duration::from_millis(10));
        let loader = builder.build().unwrap();
        let mut batches = loader.iter().unwrap();
        let process = note.wait();
        let error = batches.next().unwrap().unwrap_err();
        assert!(error.is_timeout() && error.worker() == Some(0) && error.batch() == Some(0), "{error}");
        kill(process);
    });
}

#[test]
fn when_all_is_dropped_nothing_is_left() {
    watched(|| {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let loader = in_processes(numbers(30)).persistent_workers(true).build().unwrap();
        let before = open();
        let kept: Vec<Batch> = loader.into_iter().map(Result::unwrap).collect();
        loader.iter().unwrap().next();
        assert_eq!(children().len(), 2);
        drop(loader);
        assert!(children().is_empty(), "{:?}", children());
        drop(kept);
        assert_eq!(open(), before);
    });
}

#[test]
fn workers_end_when_their_trainer_is_killed() {
    watched(|| {
        let note = Note::new("orphan");
        let mut trainer = Command::new("/proc/self/exe");
        trainer.args(["--exact", "a_trainer_to_be_killed", "--nocapture"]).env("FOREBAY_TEST_NOTE", &note.0);
        let mut trainer = trainer.stdout(Stdio::null()).spawn().unwrap();
        let worker = sys::watch_process(note.wait()).unwrap();
        trainer.kill().unwrap();
        trainer.wait().unwrap();
        while !matches!(sys::wait(&[worker.as_fd()], None).unwrap(), sys::Woken::Ready(_)) {}
    });
}

/// Waits for ever, if it is asked to.
#[test]
fn a_trainer_to_be_killed() {
    if let Some(note) = std::env::var_os("FOREBAY_TEST_NOTE") {
        let loader = in_processes(doing(1, 0, Deed::Hang(note.into()))).build().unwrap();
        let _ = loader.iter().unwrap().next();
    }
}

#[test]
fn a_worker_has_no_input_and_marks_nobody() {
    watched(|| {
        the_workers_begin_here();
        let builder = DataLoader::builder(Surroundings).num_workers(1).processes().process_args(ARGS);
        let batch = builder.build().unwrap().into_iter().next().unwrap().unwrap();
        assert_eq!((column::<u64>(&batch, "input"), column::<bool>(&batch, "said")), (vec![0], vec![true]));
        assert_eq!(column::<bool>(&batch, "own group"), [true], "Ctrl-C is the trainer's");
        assert_eq!(column::<bool>(&batch, "nested refused"), [true]);
    });
}

#[test]
fn a_crew_that_cannot_be_complete_is_one_error() {
    watched(|| {
        let open = || std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let loader = in_processes(numbers(5)).build().unwrap();
        let limit = getrlimit(Resource::Nofile);
        let (before, mut refused) = (open(), 0);
        for left in 0..20 {
            setrlimit(Resource::Nofile, Rlimit { current: Some(before + left), ..limit }).unwrap();
            let items: Vec<_> = (&loader).into_iter().collect();
            match items.as_slice() {
                [Err(error)] => {
                    assert!(error.is_system() && error.to_string().contains("open files"), "{error}");
                    refused += 1;
                }
                complete => {
                    assert!(complete.len() == 5 && complete.iter().all(Result::is_ok), "{complete:?}")
                }
            }
        }
        assert!((5..20).contains(&refused), "{refused} of 20");
        setrlimit(Resource::Nofile, limit).unwrap();
        assert!(children().is_empty() && open() == before);
        assert!(loader.into_iter().all(|batch| batch.is_ok()));
    });
}

#[test]
fn a_dataset_that_cannot_be_read_back_is_an_error_that_says_so() {
    watched(|| {
        the_workers_begin_here();
        let builder = DataLoader::builder(OneWay).num_workers(1).processes().process_args(ARGS);
        let error = builder.build().unwrap().into_iter().next().unwrap().unwrap_err();
        let text = error.to_string();
        assert!(error.is_worker_died() && text.contains("could not work"), "{text}");
        assert!(text.contains("Deserialize must fit its Serialize"), "{text}");
    });
}

#[test]
fn a_program_that_never_reaches_its_entry_is_told_what_to_add() {
    watched(|| {
        let builder = in_processes(numbers(3)).process_args(["--exact", "no such test"]);
        let error = builder.build().unwrap().into_iter().next().unwrap().unwrap_err();
        let text = error.to_string();
        assert!(error.is_worker_died() && text.contains("exited with code 0"), "{text}");
        assert!(text.contains("forebay::worker_entry must be the first line of main"), "{text}");
    });
}

#[test]
fn a_dataset_that_the_entry_does_not_name_is_refused() {
    #[derive(Serialize, Deserialize)]
    struct Unnamed;

    impl Dataset for Unnamed {
        type Sample = Sample;

        fn len(&self) -> usize {
            1
        }

        fn get(&self, _index: usize) -> Result<Sample, BoxError> {
            Ok(Sample::new())
        }
    }

    let builder = || DataLoader::builder(Unnamed).num_workers(1).processes();
    // Whether the entry was called before depends on the harness, which may run all tests in one process.
    let error = builder().build().unwrap_err();
    assert!(error.is_config() && error.to_string().contains("forebay::worker_entry::<"), "{error}");
    the_workers_begin_here();
    let text = builder().build().unwrap_err().to_string();
    assert!(text.contains("does not name this type") && text.contains("Unnamed"), "{text}");
}

#[test]
fn options_that_processes_exclude_are_refused_with_the_reason() {
    the_workers_begin_here();
    let builder = || DataLoader::builder(numbers(1)).num_workers(1);
    for (builder, text) in [
        (builder().processes().worker_init(|_| Ok(())), "init_worker"),
        (builder().processes().num_workers(0), "processes needs workers"),
        (builder().process_args(ARGS), "process_args is for worker processes"),
        (builder().processes().collate(forebay::Stack), "call collate first"),
    ] {
        let error = builder.build().unwrap_err();
        assert!(error.is_config() && error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_program_whose_name_begins_as_a_workers_is_none() {
    watched(|| {
        for name in ["forebay-worker", "forebay-worker-demo", "forebay-worker x"] {
            let mut command = Command::new("/proc/self/exe");
            let output =
                command.arg0(name).args(["--exact", "not_a_worker", "--nocapture"]).output().unwrap();
            assert!(String::from_utf8_lossy(&output.stdout).contains("I am not a worker"), "{name}");
        }
    });
}

#[test]
fn a_program_started_by_hand_as_a_worker_does_nothing() {
    watched(|| {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("forebay-worker 0").args(["--exact", "not_a_worker", "--nocapture"]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(70));
        assert!(!String::from_utf8_lossy(&output.stdout).contains("I am not a worker"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("its standard input is not a trainer's socket"), "{said}");
    });
}
