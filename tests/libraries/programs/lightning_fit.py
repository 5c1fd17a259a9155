"""Lightning's Trainer with a data module: fit with validation, and predict."""

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader

from observe import finish, observe
from problem import Points, network


class Data(lightning.LightningDataModule):
    def train_dataloader(self) -> DataLoader:
        return DataLoader(Points(), batch_size=4, shuffle=True, num_workers=2, persistent_workers=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Points(12, seed=8), batch_size=4, num_workers=2)

    def predict_dataloader(self) -> DataLoader:
        # Lightning makes this one again, with a batch sampler that notes the indices.
        return DataLoader(Points(10, seed=9), batch_size=4, num_workers=2, drop_last=True)


class Classifier(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.network = network()
        self.loss = torch.tensor(0.0)

    def training_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        points, labels = observe(batch)
        self.loss = nn.functional.cross_entropy(self.network(points), labels)
        return self.loss

    def validation_step(self, batch: list[torch.Tensor], _index: int) -> None:
        points, labels = observe(batch)
        self.log("val_loss", nn.functional.cross_entropy(self.network(points), labels))

    def predict_step(self, batch: list[torch.Tensor], _index: int) -> torch.Tensor:
        return self.network(observe(batch)[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**options: object) -> lightning.Trainer:
    return lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def main() -> None:
    lightning.seed_everything(1)
    model = Classifier()
    fitting = trainer()
    fitting.fit(model, datamodule=Data())
    predictions = fitting.predict(model, datamodule=Data())
    assert len(predictions) == 3, "Lightning's own sampler keeps the last batch when it predicts"
    # Overfitting takes the shuffling out: the loader is made again with another sampler.
    trainer(overfit_batches=2).fit(model, datamodule=Data())
    finish(model.loss)


if __name__ == "__main__":
    main()
