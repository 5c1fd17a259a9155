//! An arena as those see it who get its descriptor, and the budget its slots share.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fs::File;
use std::os::unix::fs::FileExt;

use forebay_shm::sys::{Event, duplicate};
use forebay_shm::{Arena, Geometry, Lease, MIN_SLOT_BYTES, Returns, ShmError, SlotMemory, Span};
use proptest::prelude::*;

fn geometry(budget_bytes: u64) -> Geometry {
    Geometry {
        workers: 2,
        queue_capacity: 4,
        slots: 8,
        stride_bytes: 8 << 20,
        budget_bytes,
        board_entries: 0,
    }
}

fn arena(budget_bytes: u64) -> Arena {
    Arena::create(geometry(budget_bytes)).unwrap()
}

#[test]
fn whoever_gets_the_descriptor_finds_the_same_geometry() {
    let arena = arena(64 << 20);
    let opened = Arena::open(duplicate(arena.descriptor()).unwrap()).unwrap();
    assert_eq!(opened.geometry(), arena.geometry());
}

#[test]
fn what_is_no_arena_is_refused() {
    let refused = |file| assert!(Arena::open(file).is_err());
    refused(File::open("/dev/null").unwrap().into());
    refused(File::open("/proc/self/exe").unwrap().into());
    refused(duplicate(std::os::fd::AsFd::as_fd(&Event::new().unwrap())).unwrap());
}

#[test]
fn a_geometry_that_cannot_work_is_refused() {
    let good = geometry(1 << 20);
    for bad in [
        Geometry { workers: 0, ..good },
        Geometry { workers: u32::MAX, ..good },
        Geometry { queue_capacity: 0, ..good },
        Geometry { queue_capacity: u64::MAX, ..good },
        Geometry { slots: 0, ..good },
        Geometry { slots: u32::MAX, ..good },
        Geometry { stride_bytes: 1 << 50, ..good },
    ] {
        assert!(matches!(Arena::create(bad), Err(ShmError::Corrupt { .. })), "{bad:?}");
    }
}

#[test]
fn slots_share_the_budget() {
    let arena = arena(4 << 20);
    arena.reserve(0, 3 << 20).unwrap();
    let error = arena.reserve(1, 2 << 20).unwrap_err();
    let ShmError::OverBudget { needed, budget, left, reserved } = error else { panic!("{error}") };
    assert_eq!([needed, budget, left, reserved], [2 << 20, 4 << 20, 1 << 20, 3 << 20]);
    arena.reserve(1, 1 << 20).unwrap();
    assert_eq!(arena.reserved_total(), 4 << 20);
}

#[test]
fn a_slot_always_has_room_for_an_error() {
    let arena = arena(4 << 20);
    arena.reserve(0, 4 << 20).unwrap();
    arena.reserve(1, MIN_SLOT_BYTES).unwrap();
}

#[test]
fn a_refused_reservation_changes_nothing() {
    let arena = arena(4 << 20);
    arena.reserve(0, 3 << 20).unwrap();
    arena.reserve(1, 2 << 20).unwrap_err();
    arena.reserve(1, 9 << 20).unwrap_err();
    assert_eq!([arena.reserved(0), arena.reserved(1)], [3 << 20, 0]);
}

#[test]
fn memory_that_was_given_back_can_be_reserved_by_another_slot() {
    let arena = arena(4 << 20);
    arena.reserve(0, 4 << 20).unwrap();
    arena.give_back(0).unwrap();
    arena.reserve(1, 4 << 20).unwrap();
    assert_eq!(arena.reserved_total(), 4 << 20);
}

#[test]
fn bytes_stay_when_a_slot_grows_under_its_writer() {
    let arena = arena(8 << 20);
    let mut writer = arena.indices_writer(0, SlotMemory::unmapped());
    let mut written: Vec<(u64, Vec<u8>)> = Vec::new();
    for (value, len) in [(1, 100), (2, 20_000), (3, 300_000), (4, 3_000_000)] {
        let bytes = vec![value; len];
        written.push((writer.append(&bytes).unwrap(), bytes));
    }
    for (offset, bytes) in &written {
        assert!(writer.bytes_mut(*offset, bytes.len() as u64).unwrap() == bytes.as_slice());
    }
    let used = writer.used();
    let returns = std::sync::Arc::new(Returns::new(8));
    let lease = Lease::new(&arena, returns, 0, used, &mut SlotMemory::unmapped()).unwrap();
    for (offset, bytes) in &written {
        assert!(lease.read(Span { offset: *offset, len: bytes.len() as u64 }).unwrap() == *bytes);
    }
}

#[test]
#[should_panic(expected = "allocated")]
fn a_write_outside_what_was_allocated_panics() {
    let mut writer = arena(8 << 20).indices_writer(0, SlotMemory::unmapped());
    writer.append(&[1; 100]).unwrap();
    let _ = writer.write(50, &[1; 51]);
}

proptest! {
    #[test]
    fn any_header_is_an_arena_of_the_right_size_or_an_error(
        changes in prop::collection::vec((0u64..8, prop_oneof![any::<u64>(), 0u64..100]), 1..4),
    ) {
        let arena = arena(1 << 20);
        let file = File::from(duplicate(arena.descriptor()).unwrap());
        for (word, value) in changes {
            file.write_all_at(&value.to_ne_bytes(), word * 8).unwrap();
        }
        let len = file.metadata().unwrap().len();
        if let Ok(opened) = Arena::open(file.into()) {
            let Geometry { slots, stride_bytes, .. } = opened.geometry();
            prop_assert!(u64::from(slots) * stride_bytes <= len);
            prop_assert!(len < (u64::from(slots) + 1) * stride_bytes);
        }
    }

    #[test]
    fn a_lease_reads_what_lies_in_the_used_bytes_and_nothing_else(
        used in 0u64..40_000, offset in 0u64..50_000, len in 0u64..50_000, far: bool,
    ) {
        let arena = arena(1 << 20);
        arena.reserve(0, 50_000).unwrap();
        let returns = std::sync::Arc::new(Returns::new(8));
        let lease = Lease::new(&arena, returns, 0, used, &mut SlotMemory::unmapped()).unwrap();
        let offset = if far { u64::MAX - offset } else { offset };
        let inside = !far && offset + len <= used;
        prop_assert_eq!(lease.read(Span { offset, len }).is_ok(), inside);
    }
}
