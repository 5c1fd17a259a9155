"""Transformers' Trainer with its own collator: batches grouped by length, and evaluation after each epoch."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from observe import finish, observe


class Sentences(Dataset[dict[str, Any]]):
    """Made-up tokens, of many lengths."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(3, 12, (count,), generator=generator).tolist()
        self.sentences = [torch.randint(1, 50, (length,), generator=generator).tolist() for length in lengths]

    def __len__(self) -> int:
        return len(self.sentences)

    def __getitem__(self, index: int) -> dict[str, Any]:
        tokens = self.sentences[index]
        if torch.rand(()) < 0.3:
            tokens = [*tokens, int(torch.randint(1, 50, ()))]
        return {"input_ids": tokens, "labels": tokens[0] % 2}


def pad(samples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    tokens = [torch.tensor(sample["input_ids"]) for sample in samples]
    padded = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
    labels = torch.tensor([sample["labels"] for sample in samples])
    return {"input_ids": padded, "attention_mask": (padded > 0).long(), "labels": labels}


class ObservedTrainer(Trainer):
    def training_step(self, model: Any, inputs: dict[str, torch.Tensor], *rest: Any) -> torch.Tensor:
        return super().training_step(model, observe(inputs), *rest)


def main() -> None:
    arguments = TrainingArguments(
        output_dir=str(Path.cwd() / "output"),
        num_train_epochs=2,
        per_device_train_batch_size=4,
        train_sampling_strategy="group_by_length",
        eval_strategy="epoch",
        save_strategy="no",
        dataloader_num_workers=2,
        dataloader_persistent_workers=True,
        dataloader_prefetch_factor=3,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        seed=1,
    )
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=2
    )
    trainer = ObservedTrainer(
        model=BertForSequenceClassification(config),
        args=arguments,
        data_collator=pad,
        train_dataset=Sentences(40, seed=3),
        eval_dataset=Sentences(8, seed=4),
    )
    trainer.train()
    finish(trainer.evaluate()["eval_loss"])


if __name__ == "__main__":
    main()
