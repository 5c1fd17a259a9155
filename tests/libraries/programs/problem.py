"""A tiny thing to learn: points of two classes, and a small network."""

import random

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset


class Points(Dataset[tuple[torch.Tensor, int]]):
    """Points with labels. As with augmentations, each access draws from every random generator that a worker has."""

    def __init__(self, count: int = 44, seed: int = 7) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.points = torch.randn(count, 6, generator=generator)
        self.labels = (self.points.sum(1) > 0).long().tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        noise = torch.rand(6) + np.random.rand() + random.random()
        return self.points[index] + 0.1 * noise, self.labels[index]


def network() -> nn.Module:
    """Its dropout draws from the trainer's generator, which the loader draws from, too."""
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
