"""A tensor in shared memory, which workers write and the trainer reads."""

import torch

from forebay.torch import DataLoader


class Counted:
    def __init__(self, count):
        self.uses = torch.zeros(count, dtype=torch.int32).share_memory_()

    def __len__(self):
        return len(self.uses)

    def __getitem__(self, index):
        self.uses[index] += 1  # every index has one worker at a time, so no two write the same place
        return torch.tensor(index)


if __name__ == "__main__":
    dataset = Counted(6)
    loader = DataLoader(dataset, batch_size=2, num_workers=2)
    for _ in range(2):
        for batch in loader:
            batch.sum()
    print(dataset.uses.tolist())
