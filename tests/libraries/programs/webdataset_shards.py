"""WebDataset: shards of samples, split between workers, shuffled and batched there, and mixed again in the trainer."""

from pathlib import Path

import numpy as np
import torch
import webdataset
from torch import nn

from observe import finish, observe
from problem import Points, network


def write_shards(folder: Path) -> str:
    points = Points()
    for shard in range(4):
        with webdataset.TarWriter(str(folder / f"points-{shard}.tar")) as tar:
            for index in range(shard, len(points), 4):
                tar.write(
                    {
                        "__key__": f"sample{index:03}",
                        "point.npy": points.points[index].numpy(),
                        "label.cls": points.labels[index],
                    }
                )
    return str(folder / "points-{0..3}.tar")


def with_noise(point: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(point) + 0.1 * torch.rand(6)


def main() -> None:
    torch.manual_seed(1)
    shards = write_shards(Path.cwd())
    dataset = (
        webdataset.WebDataset(shards, shardshuffle=4, seed=3)
        .shuffle(8, seed=4)
        .decode()
        .to_tuple("point.npy", "label.cls")
        .map_tuple(with_noise, int)
        .batched(4)
    )
    loader = webdataset.WebLoader(dataset, batch_size=None, num_workers=2)
    loader = loader.unbatched().shuffle(12, seed=5).batched(4)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.tensor(0.0)
    for _ in range(2):
        for batch in loader:
            points, labels = observe(batch)
            loss = nn.functional.cross_entropy(model(points), torch.as_tensor(labels))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    finish(loss)


if __name__ == "__main__":
    main()
