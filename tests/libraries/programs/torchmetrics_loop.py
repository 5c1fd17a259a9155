"""A plain loop with torchmetrics: a collection that is updated with every batch."""

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import BinaryAccuracy, BinaryAUROC

from observe import finish, observe
from problem import Points, network


def main() -> None:
    torch.manual_seed(1)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = DataLoader(Points(), batch_size=4, shuffle=True, num_workers=2, drop_last=True)
    metrics = MetricCollection([BinaryAccuracy(), BinaryAUROC()])
    mean_loss = MeanMetric()
    for _ in range(2):
        for batch in loader:
            points, labels = observe(batch)
            outputs = model(points)
            loss = nn.functional.cross_entropy(outputs, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            metrics.update(outputs.softmax(1)[:, 1].detach(), labels)
            mean_loss.update(loss.detach())
    finish(mean_loss.compute() + sum(metrics.compute().values()))


if __name__ == "__main__":
    main()
