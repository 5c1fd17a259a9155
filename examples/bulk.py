"""A dataset that makes whole batches itself: `batch_size=None`, and a sampler that gives lists of indices."""

import numpy as np

from forebay import BatchSampler, DataLoader, SequentialSampler


class Table:
    def __init__(self):
        self.rows = np.arange(20).reshape(10, 2)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, indices):
        return self.rows[indices]  # one gather for the whole batch


if __name__ == "__main__":
    dataset = Table()
    sampler = BatchSampler(SequentialSampler(dataset), batch_size=4, drop_last=False)
    for batch in DataLoader(dataset, batch_size=None, sampler=sampler, num_workers=2):
        print(batch.tolist())
