"""Statistics of shuffled orders, against what is known of permutations drawn by chance.

    python bench/shuffle_quality.py              the table of docs/shuffle.md, in a quarter of a minute
    python bench/shuffle_quality.py --rounds 3   of a network with fewer rounds: what the statistics can see
    python bench/shuffle_quality.py --chance     of NumPy's own permutations

Every statistic is scaled to have mean 0 and standard deviation 1 if all permutations are equally likely: so a value
beyond `BOUND` would be seen once in a million.
"""

import argparse
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from forebay._engine import Shuffle

BOUND = 5.0
CELLS = 32
SEED = 2026

Ints: TypeAlias = npt.NDArray[np.int64]
Orders: TypeAlias = Callable[[int, int, int], Ints]
"""The first places, at most `WINDOW`, of an order of so many samples, of a seed and an epoch."""

WINDOW = 1 << 17

LENGTHS = (5, 64, 1000, 4097, 5000, 8193, 100_000, 10**9, 2**40 + 1)


class Statistic(NamedTuple):
    """One number of standard deviations."""

    name: str
    length: int
    value: float


def engine(length: int, seed: int, epoch: int) -> Ints:
    """Forebay's own orders."""
    indices = np.empty(min(length, WINDOW), dtype=np.int64)
    Shuffle(length, seed, epoch).fill(0, indices)
    return indices


def chance(length: int, seed: int, epoch: int) -> Ints:
    """NumPy's permutations; of a long one, numbers drawn with replacement, which hardly differ."""
    rng = np.random.default_rng([seed, epoch, length])
    return rng.permutation(length) if length <= WINDOW else rng.integers(0, length, WINDOW)


def network(rounds: int) -> Orders:
    """The network of `crates/forebay-order/src/shuffle.rs` once more, with any number of rounds."""

    def orders(length: int, seed: int, epoch: int) -> Ints:
        bits = max(2, (length - 1).bit_length())
        low_bits = np.uint64(bits // 2)
        masks = [np.uint64((1 << size) - 1) for size in (bits // 2, bits - bits // 2)]
        keys = [_words(seed, epoch, length, block) for block in range(rounds)]

        def mapped(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
            halves = [values & masks[0], values >> low_bits]
            for number, (added, multiplier, *_) in enumerate(keys):
                changed = number % 2
                halves[changed] ^= _folded(halves[1 - changed] ^ added, multiplier | np.uint64(1)) & masks[changed]
            return halves[1] << low_bits | halves[0]

        values = mapped(np.arange(min(length, WINDOW), dtype=np.uint64))
        while (away := values >= np.uint64(length)).any():
            values[away] = mapped(values[away])
        return values.astype(np.int64)

    return orders


def _words(seed: int, epoch: int, length: int, block: int) -> npt.NDArray[np.uint64]:
    """`Key::words`: NumPy counts one up before it draws."""
    counter = length | epoch << 64 | block << 128
    key = seed | int.from_bytes(b"forebay\x01", "little") << 64
    return np.random.Philox(key=key, counter=(counter - 1) % 2**256).random_raw(4)


def _folded(values: npt.NDArray[np.uint64], multiplier: np.uint64) -> npt.NDArray[np.uint64]:
    """Both halves of a product of 128 bits."""
    half, mask = np.uint64(32), np.uint64(0xFFFFFFFF)
    low, high = values & mask, values >> half
    other_low, other_high = multiplier & mask, multiplier >> half
    cross = high * other_low + (low * other_low >> half)
    middle = low * other_high + (cross & mask)
    return high * other_high + (cross >> half) + (middle >> half) ^ values * multiplier


def statistics(orders: Orders, length: int) -> Iterator[Statistic]:
    """All that are known of one length."""
    keys = int(np.clip(2_000_000 // length, 1, 20_000)) if length <= WINDOW else 1
    found: dict[str, float] = {}
    if length <= 1000:
        found |= _of_many(orders, length, keys)
    else:
        found |= _of_few(orders, length, min(keys, 200) if length <= WINDOW else 4)
    yield from (Statistic(name, length, value) for name, value in found.items())


def _of_many(orders: Orders, length: int, keys: int) -> dict[str, float]:
    """Of short orders: each place and index by itself."""
    drawn = np.stack([orders(length, SEED + key, 0) for key in range(keys)])
    after = np.stack([orders(length, SEED + key, 1) for key in range(keys)])
    table = np.zeros((length, length), dtype=np.int64)
    np.add.at(table, (np.broadcast_to(np.arange(length), drawn.shape), drawn), 1)
    return {
        "index at place": _of_table(table),
        **_of_cycles(drawn),
        **_of_sequences(drawn),
        "next epoch equal": _of_coincidences(drawn, after),
        "next seed equal": _of_coincidences(drawn[:-1], drawn[1:]),
    }


def _of_few(orders: Orders, length: int, keys: int) -> dict[str, float]:
    """Of long orders: in cells of a grid."""
    drawn = np.stack([orders(length, SEED + key, 0) for key in range(keys)])
    after = np.stack([orders(length, SEED + key, 1) for key in range(keys)])
    window = drawn.shape[1]
    places = np.broadcast_to(np.arange(window), drawn.shape)
    whole = window == length
    found = _of_cycles(drawn) if whole else {}
    found |= _of_sequences(drawn) if whole else {}
    for part, cell in (("high bits", _high), ("low bits", _low)):
        found[f"index at place, {part}"] = _independence(cell(places, window), cell(drawn, length))
        for distance in (1, 2, min(1 << (length - 1).bit_length() // 2, window // 4), window // 2):
            here, there = _pairs(drawn, distance)
            found[f"{distance} apart, {part}"] = _independence(cell(here, length), cell(there, length))
        found[f"next epoch, {part}"] = _independence(cell(drawn, length), cell(after, length))
        found[f"next seed, {part}"] = _independence(cell(drawn[:-1], length), cell(drawn[1:], length))
    here, there = _pairs(drawn, 1)
    found["difference of neighbours"] = _uniformity((there - here) % length, range(1, length))
    found["high bits against low"] = _independence(_high(here, length), _low(there, length))
    found["serial correlation"] = _correlation(drawn, length)
    if not whole:
        found["indices of a window"] = _uniformity(drawn, range(length))
    return found


def _high(values: Ints, length: int) -> Ints:
    return values * CELLS // length


def _low(values: Ints, _length: int) -> Ints:
    return values % CELLS


def _pairs(drawn: Ints, distance: int) -> tuple[Ints, Ints]:
    """Indices at places that are `distance` apart, none in two pairs."""
    width = drawn.shape[1] // (2 * distance) * 2 * distance
    grouped = drawn[:, :width].reshape(len(drawn), -1, 2, distance)
    return grouped[:, :, 0].ravel(), grouped[:, :, 1].ravel()


def _chi_squared(observed: Any, expected: Any, freedom: int, factor: float = 1.0) -> float:
    """Pearson's statistic. Its variance where few are expected: of a Poisson count."""
    value = float((np.square(observed - expected) / expected).sum()) * factor
    return (value - freedom) / np.sqrt(freedom * (2 + float(np.mean(1 / expected))))


def _of_table(table: Ints) -> float:
    """Of how often an index stood at a place, which all sums of rows and columns equal."""
    size = len(table)
    return _chi_squared(table, np.full_like(table, table.sum() / size**2, float), (size - 1) ** 2, (size - 1) / size)


def _independence(rows: Ints, columns: Ints) -> float:
    """Whether two of `CELLS` cells have to do with one another."""
    flat = np.bincount(rows.ravel() * CELLS + columns.ravel(), minlength=CELLS**2)
    table = flat.reshape(CELLS, CELLS)
    table = table[table.sum(axis=1) > 0][:, table.sum(axis=0) > 0]
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return _chi_squared(table, expected, (table.shape[0] - 1) * (table.shape[1] - 1))


def _uniformity(values: Ints, possible: range) -> float:
    """Whether each of these numbers is as likely as the others, by cells, which hold almost equally many."""
    counts = np.bincount(_high(values, possible.stop).ravel(), minlength=CELLS)
    first = -(-np.arange(CELLS + 1) * possible.stop // CELLS)
    sizes = np.diff(np.maximum(first, possible.start))
    return _chi_squared(counts, counts.sum() * sizes / len(possible), CELLS - 1)


def _of_coincidences(drawn: Ints, others: Ints) -> float:
    """Places at which two orders have the same index: one on average, with variance 1."""
    return float((drawn == others).sum() - len(drawn)) / np.sqrt(len(drawn))


def _of_cycles(drawn: Ints) -> dict[str, float]:
    """Fixed points, and cycles: as many as sums of 1/k on average."""
    length = drawn.shape[1]
    places = np.arange(length)
    ahead, least = drawn.copy(), np.broadcast_to(places, drawn.shape).copy()
    for _ in range(length.bit_length()):
        np.minimum(least, np.take_along_axis(least, ahead, axis=1), out=least)
        ahead = np.take_along_axis(ahead, ahead, axis=1)
    each = 1 / np.arange(1, length + 1)
    return {
        "fixed points": _of_coincidences(drawn, np.broadcast_to(places, drawn.shape)),
        "cycles": _sum_of((least == places).sum(axis=1), each.sum(), (each - each**2).sum()),
    }


def _of_sequences(drawn: Ints) -> dict[str, float]:
    """Ascents, runs up and down, and inversions. Sources: Knuth, volume 3, 5.1; Wallis and Moore (1941)."""
    length = drawn.shape[1]
    rises = np.diff(drawn, axis=1) > 0
    turns = (rises[:, 1:] != rises[:, :-1]).sum(axis=1)
    few = drawn[:: max(1, drawn.size // 500_000)]
    inversions = np.array([_inversions(order) for order in few])
    mean, variance = length * (length - 1) / 4, length * (length - 1) * (2 * length + 5) / 72
    return {
        "ascents": _sum_of(rises.sum(axis=1), (length - 1) / 2, (length + 1) / 12),
        "runs up and down": _sum_of(turns, 2 * (length - 2) / 3, (16 * length - 29) / 90),
        "inversions": _sum_of(inversions, mean, variance),
    }


def _sum_of(values: Any, mean: float, variance: float) -> float:
    return float((values - mean).sum() / np.sqrt(variance * len(values)))


def _inversions(order: Ints) -> int:
    """Pairs in the wrong order: of those whose indices first differ in a bit, bit after bit."""
    found = 0
    for bit in reversed(range(len(order).bit_length())):
        group, ones = order >> bit + 1, order >> bit & 1
        before = np.cumsum(ones) - ones
        starts = np.concatenate([[True], group[1:] != group[:-1]])
        before -= np.maximum.accumulate(np.where(starts, before, 0))
        found += int(before[ones == 0].sum())
        order = order[np.argsort(order >> bit, kind="stable")]
    return found


def _correlation(drawn: Ints, length: int) -> float:
    """Of each index with the next one."""
    centred = (drawn + 0.5) / length - 0.5
    products = (centred[:, 1:] * centred[:, :-1]).sum(axis=1) * 12
    return _sum_of(products, -(drawn.shape[1] - 1) / length, drawn.shape[1] - 1)


def measure(orders: Orders, lengths: tuple[int, ...] = LENGTHS) -> list[Statistic]:
    """All statistics of all lengths."""
    return [found for length in lengths for found in statistics(orders, length)]


def table(found: list[Statistic]) -> str:
    """Of each length: how many statistics, the largest one, and which it is."""
    lines = ["| samples | statistics | furthest off | which |", "|---|---|---|---|"]
    for length in dict.fromkeys(each.length for each in found):
        own = [each for each in found if each.length == length]
        most = max(own, key=lambda each: abs(each.value))
        lines.append(f"| {length:,} | {len(own)} | {most.value:+.1f} | {most.name} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, help="of a network with so many rounds")
    parser.add_argument("--chance", action="store_true", help="of NumPy's own permutations")
    parser.add_argument("--all", action="store_true", help="every statistic")
    options = parser.parse_args()
    orders = chance if options.chance else network(options.rounds) if options.rounds else engine
    found = measure(orders)
    if options.all:
        print(*(f"{each.value:+7.2f}  {each.length:>15,}  {each.name}" for each in found), sep="\n")
    print(table(found))
    beyond = [each for each in found if not abs(each.value) < BOUND]
    print(f"\n{len(found)} statistics, {len(beyond)} beyond {BOUND:.0f} standard deviations")


if __name__ == "__main__":
    main()
