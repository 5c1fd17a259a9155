"""A random generator held by the dataset: equal in all workers, unless `worker_init_fn` makes it anew."""

import numpy as np

from forebay import DataLoader, get_worker_info


class Noise:
    def __init__(self):
        self.rng = np.random.default_rng(0)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return self.rng.integers(1_000_000_000)


def own_generator(worker_id):
    info = get_worker_info()
    info.dataset.rng = np.random.default_rng(info.seed)  # another one for every worker and epoch


if __name__ == "__main__":
    for worker_init_fn in (None, own_generator):
        loader = DataLoader(Noise(), num_workers=2, worker_init_fn=worker_init_fn)
        drawn = [batch.item() for _ in range(2) for batch in loader]
        print(f"{worker_init_fn and worker_init_fn.__name__}: {len(set(drawn))} different numbers of {len(drawn)}")
