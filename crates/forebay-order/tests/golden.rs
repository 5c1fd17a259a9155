//! The frozen streams: `tests/golden/order.json`, which the Python tests read, too.
//!
//! Users' runs are repeated by these values. If a change of them is meant, write the file anew by
//! `FOREBAY_WRITE_GOLDEN=1 cargo test -p forebay-order --test golden`, and name it in the changelog.

use std::fmt::Debug;
use std::{env, fs};

use forebay_order::{Key, Mt19937, SampleSeeds, Shuffle, TorchPermutation};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/order.json");
const KEYS: [(u64, u64); 4] = [(0, 0), (7, 0), (7, 1), (u64::MAX, u64::MAX)];
const LENGTHS: [u64; 11] =
    [0, 1, 2, 5, 4_096, 4_097, 1_000_000, 1_000_000_000, 1 << 40, (1 << 40) + 1, Shuffle::MOST];
const INDICES: [u64; 3] = [0, 1, (1 << 63) - 1];
const PERMUTATIONS: [(u32, u64, u64); 6] = [
    (0, 1, 0),
    (0, 5, 0),
    (7, 625, 600),
    (7, 100_000, 0),
    (7, 100_000, 65_536),
    (u32::MAX, 1_000_000, 999_990),
];
const MOST_SHOWN: u64 = 8;

fn section(name: &str, rows: impl IntoIterator<Item = String>) -> String {
    let rows: Vec<String> = rows.into_iter().map(|row| format!("  {{{row}}}")).collect();
    format!("\"{name}\": [\n{}\n]", rows.join(",\n"))
}

fn field(name: &str, value: impl Debug) -> String {
    format!("\"{name}\": {value:?}")
}

fn of_key((seed, epoch): (u64, u64)) -> String {
    [field("seed", seed), field("epoch", epoch)].join(", ")
}

fn shuffle(key: (u64, u64), len: u64, part: u64) -> String {
    let shuffle = Shuffle::part(len, Key::new(key.0, key.1), part);
    let mut first = vec![0; len.min(MOST_SHOWN) as usize];
    let mut last = first.clone();
    shuffle.fill(0, &mut first);
    shuffle.fill(len - last.len() as u64, &mut last);
    [of_key(key), field("len", len), field("part", part), field("first", first), field("last", last)]
        .join(", ")
}

fn seeds(SampleSeeds { random, numpy, torch }: SampleSeeds) -> String {
    field("seeds", [random, numpy.into(), torch])
}

fn sample(key: (u64, u64), index: u64) -> String {
    let of = Key::new(key.0, key.1);
    let mut rng = of.sample_rng(index);
    let words: [u64; 6] = std::array::from_fn(|_| rng.next_u64());
    let rng = [field("rng_key", of.sample_rng_key(index)), field("rng_words", words)].join(", ");
    [of_key(key), field("index", index), seeds(of.sample_seeds(index)), rng].join(", ")
}

fn epoch(key: (u64, u64)) -> String {
    let of = Key::new(key.0, key.1);
    [of_key(key), seeds(of.sampler_seeds()), field("base_seed", of.base_seed())].join(", ")
}

fn torch_permutation((seed, len, start): (u32, u64, u64)) -> String {
    let mut indices = vec![0; (len - start).min(MOST_SHOWN) as usize];
    TorchPermutation::new(len, Mt19937::new(seed), start).fill(&mut indices);
    [field("seed", seed), field("len", len), field("start", start), field("indices", indices)].join(", ")
}

fn golden() -> String {
    let shuffles = KEYS.into_iter().flat_map(|key| LENGTHS.map(|len| shuffle(key, len, 0)));
    let parts = [1, (1 << 59) - 1].map(|part| shuffle((7, 0), 1_000_000, part));
    let sections = [
        section("shuffle", shuffles.chain(parts)),
        section("sample", KEYS.into_iter().flat_map(|key| INDICES.map(|index| sample(key, index)))),
        section("epoch", KEYS.map(epoch)),
        section("torch_permutation", PERMUTATIONS.map(torch_permutation)),
    ];
    format!("{{\n{}\n}}\n", sections.join(",\n"))
}

#[test]
fn the_streams_of_a_seed_are_what_they_have_always_been() {
    let now = golden();
    if env::var_os("FOREBAY_WRITE_GOLDEN").is_some() {
        fs::write(FILE, &now).expect("the golden file can be written");
    }
    let kept = fs::read_to_string(FILE).expect("the golden file is there");
    for (kept, now) in kept.lines().zip(now.lines()) {
        assert_eq!(kept, now);
    }
    assert_eq!(kept.len(), now.len());
}
