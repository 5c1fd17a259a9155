"""A cache that all workers fill and read: `multiprocessing.Array` and `Value` are shared, however workers start."""

import multiprocessing

import numpy as np

from forebay import DataLoader


class Cached:
    def __init__(self, count, size):
        self.size = size
        self.samples = multiprocessing.Array("f", count * size, lock=False)
        self.is_there = multiprocessing.Array("b", count, lock=False)
        self.computed = multiprocessing.Value("i", 0)

    def __len__(self):
        return len(self.is_there)

    def __getitem__(self, index):
        samples = np.frombuffer(self.samples, np.float32).reshape(-1, self.size)
        if not self.is_there[index]:
            samples[index] = np.sqrt(np.arange(self.size) + index)  # what costs so much
            self.is_there[index] = True  # last: another worker may be looking
            with self.computed.get_lock():  # += is two steps
                self.computed.value += 1
        return samples[index]


if __name__ == "__main__":
    dataset = Cached(count=100, size=8)
    loader = DataLoader(dataset, batch_size=10, shuffle=True, num_workers=2)
    for epoch in range(3):
        total = sum(float(batch.sum()) for batch in loader)
        print(f"epoch {epoch}: sum {total:.1f}, computed so far {dataset.computed.value}")
