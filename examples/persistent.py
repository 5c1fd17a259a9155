"""What `persistent_workers=True` saves where a worker's set-up is expensive."""

import json
import multiprocessing
import tempfile
import time
from pathlib import Path

from forebay import DataLoader


class Annotated:
    def __init__(self, path, count):
        self.path = path
        self.count = count
        self.annotations = None
        self.set_ups = multiprocessing.Value("i", 0)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if self.annotations is None:  # the first sample in this worker
            self.annotations = json.loads(self.path.read_text())
            with self.set_ups.get_lock():
                self.set_ups.value += 1
        return self.annotations[str(index)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "annotations.json"
        path.write_text(json.dumps({index: [index, index + 1, index + 2] for index in range(50_000)}))
        for persistent in (False, True):
            dataset = Annotated(path, count=2_000)
            seconds = []
            with DataLoader(dataset, batch_size=50, num_workers=2, persistent_workers=persistent) as loader:
                for _ in range(3):
                    begin = time.perf_counter()
                    for _ in loader:
                        pass
                    seconds.append(f"{time.perf_counter() - begin:.3f}")
            print(f"persistent_workers={persistent}: {dataset.set_ups.value} set-ups, epochs of {', '.join(seconds)} s")
