"""An array in a file, read by all workers through the system's page cache: no copy of it in any process."""

import tempfile
from pathlib import Path

import numpy as np

from forebay import DataLoader


class Rows:
    def __init__(self, path, shape):
        self.path = path
        self.shape = shape
        self.rows = None  # opened where it is used: pickling a memmap would send the file's whole content

    def __len__(self):
        return self.shape[0]

    def __getitem__(self, index):
        if self.rows is None:
            self.rows = np.memmap(self.path, np.float32, "r", shape=self.shape)
        return self.rows[index]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.f32"
        np.arange(1000 * 64, dtype=np.float32).tofile(path)
        for batch in DataLoader(Rows(path, (1000, 64)), batch_size=250, num_workers=2):
            print(tuple(batch.shape), batch[0, :3].tolist())
