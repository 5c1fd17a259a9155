//! The shares of ranks that Rust and Python agree on: `tests/golden/share.json`, a list of
//!
//! ```json
//! {"length": 5, "rank": 1, "world": 2, "uneven": "pad", "start": 0, "places": [1, 3, 0], "passed": [0, 2, 4, 5, 5]}
//! ```
//!
//! `passed[n]` is the place up to which the order is done after `n` samples of each rank. The file is written anew by
//! `FOREBAY_WRITE_GOLDEN=1 cargo test -p forebay-order --test share`.
#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::fs;
use std::path::Path;

use forebay_order::{Share, Uneven};
use serde::{Deserialize, Serialize};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Golden {
    length: u64,
    rank: u32,
    world: u32,
    uneven: String,
    start: u64,
    places: Vec<u64>,
    passed: Vec<u64>,
}

fn of_this_release() -> Vec<Golden> {
    let mut all = Vec::new();
    for (uneven, name) in [(Uneven::Keep, "keep"), (Uneven::Pad, "pad"), (Uneven::Drop, "drop")] {
        for (length, world, start) in
            [(0, 2, 0), (1, 3, 0), (5, 2, 0), (8, 1, 3), (12, 4, 0), (13, 4, 0), (13, 3, 8), (13, 5, 13)]
        {
            for rank in 0..world {
                let share = Share::new(length, rank, world, uneven).starting_at(start);
                let places: Vec<u64> = (0..share.len()).map(|number| share.place(number)).collect();
                let passed = (0..places.len() as u64 + 2).map(|samples| share.passed(samples)).collect();
                all.push(Golden { length, rank, world, uneven: name.into(), start, places, passed });
            }
        }
    }
    all
}

#[test]
fn shares_are_those_that_are_promised() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/share.json");
    if std::env::var_os("FOREBAY_WRITE_GOLDEN").is_some() {
        let lines: Vec<String> =
            of_this_release().iter().map(|golden| serde_json::to_string(golden).unwrap()).collect();
        fs::write(&path, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
    let golden: Vec<Golden> = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(golden, of_this_release());
}
