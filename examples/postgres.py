"""A connection to a server that the trainer opens in `__init__` and keeps, and that every worker opens anew.

The server is the one that the PG variables of the environment name (PGHOST, PGUSER and so on).
"""

import os

import psycopg

from forebay import DataLoader


class Rows:
    def __init__(self):
        self.owner = None
        self.count = self.database().execute("SELECT count(*) FROM samples").fetchone()[0]

    def database(self):
        """This process's own connection. In a forked worker the one that is there is still the trainer's."""
        if self.owner != os.getpid():
            self.connection = psycopg.connect(autocommit=True)
            self.owner = os.getpid()
        return self.connection

    def __getstate__(self):  # for spawn and forkserver, which pickle the dataset: a connection cannot be
        return {"count": self.count, "owner": None}

    def __len__(self):
        return self.count

    def __getitems__(self, indices):
        """All samples of a batch, by one query."""
        rows = self.database().execute("SELECT id, x, label FROM samples WHERE id = ANY(%s)", [indices])
        found = {row[0]: row[1:] for row in rows}
        return [found[index] for index in indices]  # in the order that was asked for


if __name__ == "__main__":
    with psycopg.connect() as database:
        database.execute("CREATE TABLE IF NOT EXISTS samples (id int PRIMARY KEY, x float8, label int)")
        database.execute(
            "INSERT INTO samples SELECT i, i / 4.0, i % 3 FROM generate_series(0, 7) AS i ON CONFLICT DO NOTHING"
        )
    dataset = Rows()
    for x, label in DataLoader(dataset, batch_size=4, num_workers=2):
        print(x.tolist(), label.tolist())
    print("the trainer's own connection still works:", dataset.database().execute("SELECT 1").fetchone())
