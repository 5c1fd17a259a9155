"""Plain torch: a loop over a loader whose workers are forked, and one over a loader whose workers are started anew."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from observe import finish, observe
from problem import Points, network


def main() -> None:
    torch.manual_seed(1)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss = torch.tensor(0.0)
    for method in ("fork", "spawn"):
        loader = DataLoader(
            Points(),
            batch_size=4,
            shuffle=True,
            num_workers=2,
            multiprocessing_context=method,
            persistent_workers=method == "spawn",
        )
        for _ in range(2):
            for batch in loader:
                points, labels = observe(batch)
                loss = nn.functional.cross_entropy(model(points), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    finish(loss)


if __name__ == "__main__":
    main()
