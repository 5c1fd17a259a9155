"""Lightning's Fabric: a loop of one's own, over loaders that it sets up."""

import torch
from lightning.fabric import Fabric, seed_everything
from torch import nn
from torch.utils.data import DataLoader

from observe import finish, observe
from problem import Points, network


def main() -> None:
    seed_everything(1, workers=True)
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    model = network()
    model, optimizer = fabric.setup(model, torch.optim.SGD(model.parameters(), lr=0.1))
    loader = fabric.setup_dataloaders(DataLoader(Points(), batch_size=4, shuffle=True, num_workers=2))
    loss = torch.tensor(0.0)
    for _ in range(2):
        for batch in loader:
            points, labels = observe(batch)
            loss = nn.functional.cross_entropy(model(points), labels)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
    finish(loss)


if __name__ == "__main__":
    main()
