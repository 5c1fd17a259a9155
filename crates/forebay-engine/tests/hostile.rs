//! Nonsense from a worker is an error of the engine, never a crash and never bytes of another batch.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use common::{config, expect_batch, out_of_order, watched};
use forebay_engine::layout::{Array, DType, Value, encode};
use forebay_engine::{
    Batch, Crew, Engine, EngineConfig, EngineError, Order, Outcome, Seat, Turn, Worker,
    WorkerEnd as WorkerEndedHow,
};
use forebay_shm::board::Wanted;
use forebay_shm::queue::{RECORD_WORDS, Record};
use forebay_shm::sys::{Event, duplicate};
use forebay_shm::{Arena, ShmError, Span, WorkerEnd};
use proptest::prelude::*;

const DONE: u64 = 2;

/// The records a worker sends, as they are in the queue: a report on batch `step` in `slot`.
fn done(step: u64, slot: u64, layout: Span) -> Record {
    [DONE, step, slot, 0, layout.offset, layout.len, layout.offset.saturating_add(layout.len), 0]
}

/// Takes a seat without being a worker: the trainer's records can be read, and any record sent.
fn impostor(seat: Seat) -> WorkerEnd {
    let (own, trainer) =
        (Event::from_descriptor(seat.worker_bell), Event::from_descriptor(seat.trainer_bell));
    WorkerEnd::new(Arena::open(seat.arena).unwrap(), seat.worker, own, trainer).unwrap()
}

/// An engine with `sent` batches out, and impostors on all its seats.
fn besieged(config: EngineConfig, sent: usize) -> (Engine, Vec<WorkerEnd>) {
    let mut engine = Engine::new(config).unwrap();
    let impostors = (0..config.workers()).map(|worker| impostor(engine.seat(worker).unwrap())).collect();
    for _ in 0..sent {
        engine.submit(0, vec![7; 16]).unwrap();
    }
    (engine, impostors)
}

/// The slot that the oldest order grants.
fn granted(worker: &mut WorkerEnd) -> (u64, u64) {
    let record = worker.receive().unwrap().expect("a batch was sent");
    (record[1], record[2])
}

/// All that the engine says to one worker's records, until it says no more.
fn answers(engine: &mut Engine) -> Vec<Result<Batch, EngineError>> {
    let mut answers = Vec::new();
    loop {
        match engine.turn() {
            Ok(Turn::Batch(batch)) => answers.push(Ok(batch)),
            Ok(Turn::Pending | Turn::Idle) => return answers,
            Ok(Turn::StreamEnded) => {}
            Err(error) => answers.push(Err(error)),
        }
    }
}

/// The one answer to one record.
fn answer(engine: &mut Engine) -> Result<Batch, EngineError> {
    answers(engine).pop().expect("the engine answers")
}

#[test]
fn a_report_on_a_batch_that_was_not_sent_is_refused() {
    let (mut engine, mut workers) = besieged(config(2, 2), 1);
    let (step, slot) = granted(&mut workers[0]);
    workers[0].send(&done(step + 1, slot, Span { offset: 0, len: 1 })).unwrap();
    assert!(matches!(answer(&mut engine), Err(EngineError::Protocol { worker: 0, .. })));
}

#[test]
fn a_report_on_the_batch_of_another_worker_is_refused() {
    let (mut engine, mut workers) = besieged(config(2, 2), 2);
    let (step, slot) = granted(&mut workers[0]);
    workers[1].send(&done(step, slot, Span { offset: 0, len: 1 })).unwrap();
    assert!(matches!(answer(&mut engine), Err(EngineError::Protocol { worker: 1, .. })));
}

#[test]
fn a_report_with_the_slot_of_another_batch_is_refused() {
    let (mut engine, mut workers) = besieged(config(1, 2), 2);
    let (step, _) = granted(&mut workers[0]);
    let (_, other_slot) = granted(&mut workers[0]);
    workers[0].send(&done(step, other_slot, Span { offset: 0, len: 1 })).unwrap();
    assert!(matches!(answer(&mut engine), Err(EngineError::Protocol { worker: 0, .. })));
}

#[test]
fn a_report_on_a_batch_whose_rows_are_not_all_done_is_refused() {
    let mut engine = Engine::new(config(2, 2).sharing_rows()).unwrap();
    let mut workers = [0, 1].map(|worker| impostor(engine.seat(worker).unwrap()));
    engine.submit_rows(0, vec![7; 16], 2).unwrap();
    for worker in &mut workers {
        let (part, _) = worker.begin(Wanted::Unbegun).unwrap().expect("a batch was posted");
        let report = done(part.posting.step, part.posting.slot.into(), Span { offset: 0, len: 1 });
        worker.send(&report).unwrap();
        let answer = answer(&mut engine);
        assert!(matches!(answer, Err(EngineError::Protocol { .. })), "{answer:?}");
        worker.hand_in(&part, None).unwrap();
    }
}

/// Makes the oldest batch as a worker would, and tells the report on it.
fn made(worker: &mut WorkerEnd) -> Record {
    let (step, slot) = granted(worker);
    let (mut writer, _) = worker.open_slot(slot as u32, 0).unwrap();
    let mut description = Vec::new();
    encode(&Value::None, &mut description);
    let offset = writer.append(&description).unwrap();
    done(step, slot, Span { offset, len: description.len() as u64 })
}

#[test]
fn a_batch_reported_twice_is_refused_the_second_time() {
    for config in [config(1, 2), out_of_order(1, 2)] {
        let (mut engine, mut workers) = besieged(config, 1);
        let report = made(&mut workers[0]);
        workers[0].send(&report).unwrap();
        workers[0].send(&report).unwrap();
        let answers = answers(&mut engine);
        assert!(
            matches!(answers.as_slice(), [Err(EngineError::Protocol { worker: 0, .. }), Ok(_)]),
            "{answers:?}"
        );
    }
}

#[test]
fn a_batch_reported_again_after_its_delivery_is_refused() {
    let (mut engine, mut workers) = besieged(config(1, 1), 1);
    let report = made(&mut workers[0]);
    workers[0].send(&report).unwrap();
    assert!(answer(&mut engine).is_ok());
    workers[0].send(&report).unwrap();
    assert!(matches!(answer(&mut engine), Err(EngineError::Protocol { worker: 0, .. })));
}

#[test]
fn a_description_outside_the_slot_is_an_error_after_which_the_next_batch_is_delivered() {
    let (mut engine, mut workers) = besieged(config(1, 2), 1);
    let (step, slot) = granted(&mut workers[0]);
    workers[0].send(&done(step, slot, Span { offset: 1 << 40, len: 1 })).unwrap();
    assert!(matches!(answer(&mut engine), Err(EngineError::Shm(ShmError::Corrupt { .. }))));
    engine.submit(0, Vec::new()).unwrap();
    let report = made(&mut workers[0]);
    workers[0].send(&report).unwrap();
    assert!(answer(&mut engine).is_ok());
}

#[test]
fn batches_larger_than_their_slots_are_errors_that_cost_no_slot() {
    let (mut engine, mut workers) = besieged(config(1, 1), 0);
    for _ in 0..5000 {
        engine.submit(0, Vec::new()).unwrap();
        let mut report = made(&mut workers[0]);
        report[6] = u64::MAX;
        workers[0].send(&report).unwrap();
        assert!(matches!(answer(&mut engine), Err(EngineError::Shm(ShmError::Corrupt { .. }))));
    }
}

/// A crew whose one member ends when its event is rung.
#[derive(Debug)]
struct Mortal(Event);

impl Crew for Mortal {
    fn exit(&self, _worker: u32) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    fn end(&self, _worker: u32) -> WorkerEndedHow {
        WorkerEndedHow::Process
    }
}

#[test]
fn a_batch_is_delivered_although_its_worker_was_killed_before_it_could_wake_the_trainer() {
    watched(|| {
        for _ in 0..100 {
            let mut engine = Engine::new(config(1, 1)).unwrap();
            let exit = Event::new().unwrap();
            engine.attach(Box::new(Mortal(exit.duplicate().unwrap())));
            // It rings a bell that nobody hears.
            let seat = Seat {
                trainer_bell: duplicate(Event::new().unwrap().as_fd()).unwrap(),
                ..engine.seat(0).unwrap()
            };
            engine.submit(0, Vec::new()).unwrap();
            let asleep = Arena::open(duplicate(seat.arena.as_fd()).unwrap()).unwrap().trainer_sleeper();
            let worker = thread::spawn(move || {
                let mut worker = impostor(seat);
                let report = made(&mut worker);
                while !asleep.must_ring() {
                    thread::yield_now();
                }
                worker.send(&report).unwrap();
                exit.ring().unwrap();
            });
            assert!(expect_batch(&mut engine).regions.is_empty());
            worker.join().unwrap();
        }
    });
}

/// What the engine says to a batch of `written` bytes that is described by `value`.
fn described(written: &[u8], value: &Value) -> Result<Batch, EngineError> {
    let mut engine = Engine::new(config(1, 1)).unwrap();
    let mut worker = Worker::join(engine.seat(0).unwrap()).unwrap();
    engine.submit(0, Vec::new()).unwrap();
    let Some(Order::Fill(mut ticket)) = worker.try_next().unwrap() else { panic!("a batch was sent") };
    assert_eq!(ticket.writer.append(written).unwrap(), 0);
    worker.finish(ticket, Outcome::Batch, value).unwrap();
    answer(&mut engine)
}

fn array(offset: u64, len: u64) -> Value {
    let span = Span { offset, len };
    Value::Array(Array { flavour: 0, dtype: DType::U8, shape: vec![len], strides: None, span })
}

#[test]
fn arrays_that_share_bytes_are_an_error() {
    let value = Value::List(vec![array(0, 5001), array(5000, 5000)]);
    assert!(matches!(described(&[1; 10_000], &value), Err(EngineError::Shm(ShmError::Corrupt { .. }))));
}

#[test]
fn an_array_whose_end_is_beyond_all_numbers_is_an_error() {
    let value = Value::List(vec![array(0, 5000), array(u64::MAX - 10, 5000), array(u64::MAX, 5000)]);
    assert!(matches!(described(&[1; 10_000], &value), Err(EngineError::Shm(ShmError::Corrupt { .. }))));
}

/// Places in a slot, outside it, and where sums overflow.
fn spans() -> impl Strategy<Value = Span> {
    let edge = prop_oneof![Just(1u64 << 20), Just(1 << 33), Just(u64::MAX / 2), Just(u64::MAX)];
    let far = (edge, 0u64..20_000, any::<bool>()).prop_map(|(edge, distance, below)| {
        if below { edge.wrapping_sub(distance) } else { edge.wrapping_add(distance) }
    });
    let number = prop_oneof![3 => 0u64..5000, 2 => 0u64..20_000, 1 => far];
    (number.clone(), number).prop_map(|(offset, len)| Span { offset, len })
}

/// Records close to those a worker sends.
fn records() -> impl Strategy<Value = Record> {
    let small = 0u64..6;
    let near = (1u64..5, small.clone(), small.clone(), 0u64..3, spans(), prop_oneof![small, any::<u64>()])
        .prop_map(|(kind, step, slot, outcome, layout, used)| {
            [kind, step, slot, outcome, layout.offset, layout.len, used, 0]
        });
    prop_oneof![3 => near, 1 => any::<[u64; RECORD_WORDS]>()]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_records_are_batches_or_errors(
        records in prop::collection::vec((0u32..2, records()), 1..8),
        in_order: bool,
        sent in 0usize..5,
    ) {
        let config = if in_order { config(2, 2) } else { out_of_order(2, 2) };
        let (mut engine, mut workers) = besieged(config, sent);
        for (worker, record) in records {
            workers[worker as usize].send(&record).unwrap();
            answers(&mut engine);
        }
        engine.restart(0).unwrap();
        answers(&mut engine);
    }

    #[test]
    fn any_places_of_arrays_are_bytes_of_the_slot_or_an_error(
        body in spans(),
        buffers in prop::collection::vec(spans(), 0..4),
        written in prop::collection::vec(any::<u8>(), 0..20_000),
    ) {
        let value = Value::Opaque { body, buffers: buffers.clone() };
        if let Ok(batch) = described(&written, &value) {
            for (region, span) in batch.regions.iter().zip([body].into_iter().chain(buffers)) {
                prop_assert_eq!(region.len() as u64, span.len);
                let of_array = &written[written.len().min(span.offset as usize)..];
                let of_array = &of_array[..of_array.len().min(region.len())];
                prop_assert_eq!(&region.bytes()[..of_array.len()], of_array);
            }
        }
    }

    #[test]
    fn any_description_is_a_value_or_an_error(description in prop::collection::vec(any::<u8>(), 1..200)) {
        let (mut engine, mut workers) = besieged(config(1, 1), 1);
        let (step, slot) = granted(&mut workers[0]);
        let (mut writer, _) = workers[0].open_slot(slot as u32, 0).unwrap();
        let offset = writer.append(&description).unwrap();
        workers[0].send(&done(step, slot, Span { offset, len: description.len() as u64 })).unwrap();
        let _ = answer(&mut engine);
    }
}
