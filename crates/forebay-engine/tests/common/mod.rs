//! What the journeys share: a watchdog, gates, and a worker that makes batches to a recipe.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use forebay_engine::layout::{Array, DType, Value};
use forebay_engine::{
    Batch, Engine, EngineConfig, EngineError, Order, Outcome, ThreadCrew, Ticket, Turn, Worker,
};
use forebay_shm::Span;

/// A watchdog for what could hang; no law is about time.
const WATCHDOG: Duration = Duration::from_secs(60);

/// Runs `body` and fails when it hangs.
pub(crate) fn watched(body: impl FnOnce() + Send + 'static) {
    let (alive, ended) = channel::<()>();
    let body = thread::spawn(move || {
        let _alive = alive;
        body();
    });
    assert_ne!(ended.recv_timeout(WATCHDOG), Err(RecvTimeoutError::Timeout), "the watchdog barked");
    if let Err(panic) = body.join() {
        resume_unwind(panic);
    }
}

/// Opened once, by anybody; those who came before wait.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    pub(crate) fn pass(&self) {
        let open = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(open, |open| !*open).unwrap());
    }
}

/// What a batch is to contain: the length of each array, in bytes. It travels as the indices of the batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe(pub(crate) Vec<u32>);

impl Recipe {
    pub(crate) fn to_indices(&self) -> Vec<u8> {
        self.0.iter().flat_map(|len| len.to_le_bytes()).collect()
    }

    pub(crate) fn from_indices(indices: &[u8]) -> Self {
        Self(indices.chunks_exact(4).map(|len| u32::from_le_bytes(len.try_into().unwrap())).collect())
    }
}

/// Fills `bytes` with what array `place` of batch `step` is to contain: other bytes in every batch and array.
pub(crate) fn fill(step: u64, place: usize, bytes: &mut [u8]) {
    let mut state = (step << 8 | place as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for chunk in bytes.chunks_mut(8) {
        state = state.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}

/// Writes the batch of the ticket's recipe, arrays by turns in the ways a front can: whole, in rows, or in place.
pub(crate) fn cook(ticket: &mut Ticket) -> Result<Value, EngineError> {
    let recipe = Recipe::from_indices(&ticket.indices);
    let (step, writer) = (ticket.step, &mut ticket.writer);
    let arrays = recipe.0.iter().enumerate().map(|(place, len)| {
        let mut bytes = vec![0; *len as usize];
        fill(step, place, &mut bytes);
        let len = u64::from(*len);
        let offset = match (place + step as usize) % 3 {
            0 => writer.append(&bytes)?,
            1 => {
                let offset = writer.allocate(len)?;
                let mut rows =
                    bytes.chunks(1 + bytes.len() / 10).zip((offset..).step_by(1 + bytes.len() / 10));
                rows.try_for_each(|(row, offset)| writer.write(offset, row))?;
                offset
            }
            _ => {
                let offset = writer.allocate(len)?;
                writer.bytes_mut(offset, len)?.copy_from_slice(&bytes);
                offset
            }
        };
        let span = Span { offset, len };
        Ok(Value::Array(Array { flavour: 0, dtype: DType::U8, shape: vec![len], strides: None, span }))
    });
    Ok(Value::List(arrays.collect::<Result<_, EngineError>>()?))
}

/// Checks that a batch is exactly what its recipe asked for.
pub(crate) fn assert_cooked(batch: &Batch, recipe: &Recipe) {
    assert_eq!(batch.outcome, Outcome::Batch);
    let lengths: Vec<_> = batch.regions.iter().map(|region| region.len() as u32).collect();
    assert_eq!(lengths, recipe.0, "batch {}", batch.step);
    assert_right_bytes(batch);
}

/// Checks every byte that is left of a batch.
pub(crate) fn assert_right_bytes(batch: &Batch) {
    for (place, region) in batch.regions.iter().enumerate() {
        let mut expected = vec![0; region.len()];
        fill(batch.step, place, &mut expected);
        assert!(region.bytes() == expected, "array {place} of batch {} has other bytes", batch.step);
    }
}

/// The worker's loop: `make` makes each batch; what fails is reported in the batch's place.
pub(crate) fn serve(
    mut worker: Worker,
    mut make: impl FnMut(&mut Ticket) -> Result<Value, EngineError>,
) -> Result<(), EngineError> {
    loop {
        match worker.next_order()? {
            None => {}
            Some(Order::Stop) => return Ok(()),
            Some(Order::Rows(_)) => panic!("these workers share no rows"),
            Some(Order::Fill(mut ticket)) => {
                let made = make(&mut ticket);
                finish(&mut worker, ticket, made)?;
            }
        }
    }
}

/// Publishes a batch, or an error in its place.
pub(crate) fn finish(
    worker: &mut Worker,
    mut ticket: Ticket,
    made: Result<Value, EngineError>,
) -> Result<(), EngineError> {
    let (outcome, value) = match made {
        Ok(value) => (Outcome::Batch, value),
        Err(error) => {
            ticket.writer.clear();
            (Outcome::Error, Value::Text(error.to_string()))
        }
    };
    worker.finish(ticket, outcome, &value).map_err(|unpublished| unpublished.error)
}

/// `workers` workers with `prefetch_factor` batches ahead each and memory in plenty.
pub(crate) fn config(workers: u32, prefetch_factor: u32) -> EngineConfig {
    EngineConfig::new(workers, prefetch_factor, true, Some(256 << 20)).unwrap()
}

/// The same, delivering as batches arrive.
pub(crate) fn out_of_order(workers: u32, prefetch_factor: u32) -> EngineConfig {
    EngineConfig::new(workers, prefetch_factor, false, Some(256 << 20)).unwrap()
}

/// An engine whose crew is threads that run `work`.
pub(crate) fn engine<F>(config: EngineConfig, work: F) -> Engine
where
    F: Fn(Worker) -> Result<(), EngineError> + Clone + Send + 'static,
{
    let mut engine = Engine::new(config).unwrap();
    let seats = (0..config.workers()).map(|worker| engine.seat(worker).unwrap()).collect();
    engine.attach(Box::new(ThreadCrew::start(seats, work).unwrap()));
    engine
}

/// An engine whose workers cook.
pub(crate) fn kitchen(config: EngineConfig) -> Engine {
    engine(config, |worker| serve(worker, cook))
}

/// The next batch, however long it takes; `None` when everything sent has been delivered.
pub(crate) fn next(engine: &mut Engine) -> Result<Option<Batch>, EngineError> {
    loop {
        match engine.turn()? {
            Turn::Batch(batch) => return Ok(Some(batch)),
            Turn::Idle => return Ok(None),
            Turn::Pending => drop(engine.wait(None)?),
            Turn::StreamEnded => panic!("these workers have no streams"),
        }
    }
}

/// The next batch, which must come.
pub(crate) fn expect_batch(engine: &mut Engine) -> Batch {
    next(engine).unwrap().expect("a batch is on its way")
}

/// Sends one batch for every recipe, never more than the window allows ahead, and hands each batch to `take`.
pub(crate) fn travel(engine: &mut Engine, recipes: &[Recipe], mut take: impl FnMut(&mut Engine, Batch)) {
    let mut ahead = recipes.iter();
    for _ in recipes {
        while engine.wants()
            && let Some(recipe) = ahead.next()
        {
            engine.submit(0, recipe.to_indices()).unwrap();
        }
        let batch = expect_batch(engine);
        take(engine, batch);
    }
    assert!(matches!(engine.turn(), Ok(Turn::Idle)));
}
