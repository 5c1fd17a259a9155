"""Accelerate over two processes: even batches or not, a seedable sampler, and a stream that the first one hands out."""

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, set_seed
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from observe import finish, observe
from problem import Points, network


class Stream(IterableDataset):
    """Every other point for each of two workers."""

    def __iter__(self):
        points = Points(36, seed=9)
        worker = torch.utils.data.get_worker_info()
        for index in range(worker.id, len(points), worker.num_workers):
            yield points[index]


def train(accelerator: Accelerator, loader: DataLoader) -> torch.Tensor:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    loss = torch.tensor(0.0)
    for _ in range(2):
        for batch in loader:
            points, labels = observe(batch)
            loss = nn.functional.cross_entropy(model(points), labels)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
    return loss


def main() -> None:
    set_seed(1)
    # 30 samples: 8 batches and 2 samples over, which even_batches fills up from the beginning.
    even = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True))
    loss = train(even, DataLoader(Points(30), batch_size=4, shuffle=True, num_workers=2))
    uneven = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(even_batches=False))
    loss += train(uneven, DataLoader(Points(30), batch_size=4, shuffle=True, num_workers=2))
    dispatched = Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(dispatch_batches=True))
    loss += train(dispatched, DataLoader(Stream(), batch_size=4, num_workers=2))
    finish(loss)
    dispatched.end_training()


if __name__ == "__main__":
    main()
