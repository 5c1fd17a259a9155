"""timm's create_loader over a folder of images, with its prefetcher, without it, and with its loader of many epochs."""

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import create_dataset, create_loader
from timm.utils import random_seed
from torch import nn

from observe import finish, observe


def draw(folder: Path) -> None:
    generator = np.random.default_rng(5)
    for number in range(24):
        place = folder / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = generator.integers(0, 256, (40, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")


def train(model: nn.Module, folder: Path, **options: Any) -> torch.Tensor:
    dataset = create_dataset("", root=str(folder))
    loader = create_loader(
        dataset,
        input_size=(3, 32, 32),
        batch_size=4,
        is_training=True,
        re_prob=0.5,
        auto_augment="rand-m9-mstd0.5",
        num_workers=2,
        device=torch.device("cpu"),
        **options,
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    loss = torch.tensor(0.0)
    for _ in range(2):
        for batch in loader:
            images, labels = observe(batch)
            loss = nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return loss


def main() -> None:
    random_seed(1)  # the prefetcher erases with Python's own generator, in the trainer
    folder = Path.cwd() / "images"
    draw(folder)
    model = timm.create_model("resnet10t", num_classes=2)
    train(model, folder, use_prefetcher=True)
    train(model, folder, use_prefetcher=False, persistent_workers=False)
    finish(train(model, folder, use_multi_epochs_loader=True))


if __name__ == "__main__":
    main()
