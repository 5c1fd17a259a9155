"""The yard-stick: what one bare copy of so many bytes costs here. By hand: python bench/memcpy.py 9633792"""

import statistics
import sys
import time

import numpy as np

COPIES = 50


def median_ms(size: int) -> float:
    """The median of some copies between two buffers that have been used before."""
    source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)
    times: list[float] = []
    for _ in range(COPIES):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    print(median_ms(int(sys.argv[1])))
