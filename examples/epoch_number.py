"""Telling workers that persist something new: a `multiprocessing.Value` that the trainer sets between epochs."""

import multiprocessing

from forebay import DataLoader


class Curriculum:
    def __init__(self):
        self.difficulty = multiprocessing.Value("i", 0)
        self.frozen = 0  # a plain attribute: the workers keep the value it had when they started

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return [index + 10 * self.difficulty.value, index + 10 * self.frozen]


if __name__ == "__main__":
    dataset = Curriculum()
    with DataLoader(dataset, batch_size=4, num_workers=2, persistent_workers=True) as loader:
        for epoch in range(3):
            dataset.difficulty.value = dataset.frozen = epoch  # before iter(): batches are made ahead
            for shared, frozen in loader:
                print(shared.tolist(), frozen.tolist())
