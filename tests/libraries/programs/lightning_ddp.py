"""Lightning's Trainer over two processes: it gives each a DistributedSampler of its own making."""

import lightning
from torch.utils.data import DataLoader, DistributedSampler

from lightning_fit import Classifier, trainer
from observe import finish
from problem import Points


def main() -> None:
    lightning.seed_everything(1, workers=True)
    model = Classifier()
    fitting = trainer(devices=2, strategy="ddp")
    checked = DataLoader(Points(12, seed=8), batch_size=4, num_workers=2)
    fitting.fit(model, DataLoader(Points(), batch_size=4, shuffle=True, num_workers=2), checked)
    assert isinstance(fitting.train_dataloader.sampler, DistributedSampler)
    finish(model.loss)


if __name__ == "__main__":
    main()
