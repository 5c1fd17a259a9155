"""Hugging Face datasets, map-style: tables in torch's format, read in batches and transformed when they are read."""

from typing import Any

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader

from observe import finish, observe
from problem import Points, network


def with_noise(rows: dict[str, Any]) -> dict[str, Any]:
    points = torch.tensor(rows["point"])
    return {"point": points + 0.1 * torch.rand(points.shape), "label": torch.tensor(rows["label"])}


def main() -> None:
    torch.manual_seed(1)
    points = Points()
    table = Dataset.from_dict({"point": points.points.tolist(), "label": points.labels})
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.tensor(0.0)
    for dataset in (table.with_format("torch"), table.with_transform(with_noise)):
        loader = DataLoader(dataset, batch_size=4, shuffle=True, num_workers=2)
        for _ in range(2):
            for batch in loader:
                observe(batch)
                loss = nn.functional.cross_entropy(model(batch["point"]), batch["label"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    finish(loss)


if __name__ == "__main__":
    main()
