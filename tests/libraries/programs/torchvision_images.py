"""torchvision's reference training: a folder of images, its transforms, and CutMix and MixUp when a batch is made."""

from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, default_collate
from torchvision.transforms import v2

from observe import finish, observe


def draw(folder: Path) -> None:
    generator = torch.Generator().manual_seed(5)
    for number in range(24):
        place = folder / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (3, 40, 36), dtype=torch.uint8, generator=generator)
        torchvision.io.write_jpeg(pixels, str(place / f"{number}.jpg"))


def main() -> None:
    torch.manual_seed(1)
    folder = Path.cwd() / "images"
    draw(folder)
    transform = v2.Compose(
        [
            v2.ToImage(),
            v2.RandomResizedCrop(32, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.TrivialAugmentWide(),
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomErasing(p=0.3),
        ]
    )
    dataset = torchvision.datasets.ImageFolder(str(folder), transform)
    mix = v2.RandomChoice([v2.CutMix(num_classes=2), v2.MixUp(num_classes=2)])

    def collate(samples: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
        return mix(*default_collate(samples))

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.tensor(0.0)
    for collate_fn in (None, collate):
        loader = DataLoader(dataset, batch_size=4, shuffle=True, num_workers=2, collate_fn=collate_fn, drop_last=True)
        for _ in range(2):
            for batch in loader:
                images, labels = observe(batch)
                loss = nn.functional.cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    finish(loss)


if __name__ == "__main__":
    main()
