"""Plain torch under torchrun: DistributedDataParallel and a DistributedSampler."""

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from observe import finish, observe
from problem import Points, network


def main() -> None:
    torch.distributed.init_process_group("gloo")
    torch.manual_seed(torch.distributed.get_rank())
    dataset = Points()
    sampler: DistributedSampler[int] = DistributedSampler(dataset, shuffle=True)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=2)
    model = DistributedDataParallel(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.tensor(0.0)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        for batch in loader:
            points, labels = observe(batch)
            loss = nn.functional.cross_entropy(model(points), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finish(loss)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
