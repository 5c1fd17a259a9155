"""Ignite: its automatic loader, and the deterministic engine, which makes the loader again with another sampler."""

import ignite.distributed as idist
import torch
from ignite.engine import DeterministicEngine, Engine, Events
from ignite.metrics import Loss
from torch import nn
from torch.utils.data import DataLoader

from observe import finish, observe
from problem import Points, network


def main() -> None:
    torch.manual_seed(1)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(_engine: Engine, batch: list[torch.Tensor]) -> float:
        points, labels = observe(batch)
        loss = nn.functional.cross_entropy(model(points), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    def check(_engine: Engine, batch: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        points, labels = observe(batch)
        with torch.no_grad():
            return model(points), labels

    evaluator = Engine(check)
    Loss(nn.functional.cross_entropy).attach(evaluator, "loss")
    checked = idist.auto_dataloader(Points(12, seed=8), batch_size=4, num_workers=2)
    for trainer in (Engine(step), DeterministicEngine(step)):
        trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run(checked))
        trainer.run(DataLoader(Points(), batch_size=4, shuffle=True, num_workers=2), max_epochs=2)
    finish(evaluator.state.metrics["loss"])


if __name__ == "__main__":
    main()
