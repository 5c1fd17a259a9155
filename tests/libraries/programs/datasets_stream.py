"""Hugging Face datasets, streaming: shards go to workers, a buffer shuffles, and each epoch has its own order."""

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader

from observe import finish, observe
from problem import Points, network


def main() -> None:
    torch.manual_seed(1)
    points = Points()
    table = Dataset.from_dict({"point": points.points.tolist(), "label": points.labels})
    stream = table.to_iterable_dataset(num_shards=4).shuffle(seed=3, buffer_size=10).with_format("torch")
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.tensor(0.0)
    for persistent in (False, True):
        # With persistent workers, set_epoch reaches them through memory that the dataset shares with its copies.
        loader = DataLoader(stream, batch_size=4, num_workers=2, persistent_workers=persistent)
        for epoch in range(2):
            stream.set_epoch(epoch)
            for batch in loader:
                observe(batch)
                loss = nn.functional.cross_entropy(model(batch["point"]), batch["label"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    finish(loss)


if __name__ == "__main__":
    main()
