"""A database connection for each worker, opened in `worker_init_fn`."""

import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from forebay import DataLoader, get_worker_info


class Rows:
    def __init__(self, path):
        self.path = path
        self.database = None
        with closing(sqlite3.connect(path)) as database:  # closed again, before any worker starts
            self.ids = [row[0] for row in database.execute("SELECT id FROM samples ORDER BY id")]

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, index):
        return self.database.execute("SELECT x, label FROM samples WHERE id = ?", [self.ids[index]]).fetchone()


def open_database(worker_id):
    dataset = get_worker_info().dataset  # this worker's copy
    dataset.database = sqlite3.connect(f"file:{dataset.path}?mode=ro", uri=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "samples.db"
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("CREATE TABLE samples (id INTEGER PRIMARY KEY, x REAL, label INTEGER)")
            database.executemany("INSERT INTO samples VALUES (?, ?, ?)", [(7 * i, i / 4, i % 3) for i in range(8)])
        for x, label in DataLoader(Rows(path), batch_size=4, num_workers=2, worker_init_fn=open_database):
            print(x.tolist(), label.tolist())
