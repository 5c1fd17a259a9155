"""Accelerate's loop: prepare a loader, train, and resume in the middle of an epoch by skipping batches."""

import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader

from observe import finish, observe
from problem import Points, network


def main() -> None:
    set_seed(1)
    accelerator = Accelerator(cpu=True)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(Points(), batch_size=4, shuffle=True, num_workers=2)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    loss = torch.tensor(0.0)
    for epoch in range(2):
        for batch in skip_first_batches(loader, 3) if epoch == 0 else loader:
            points, labels = observe(batch)
            loss = nn.functional.cross_entropy(model(points), labels)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    finish(loss)


if __name__ == "__main__":
    main()
