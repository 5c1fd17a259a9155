"""fastai: a learner over its own loaders."""

import torch
from fastai.callback.progress import ProgressCallback
from fastai.data.core import DataLoaders
from fastai.data.load import DataLoader
from fastai.learner import Callback, Learner
from fastai.torch_core import set_seed
from torch import nn

from observe import finish, observe
from problem import Points, network


class Observer(Callback):
    def before_batch(self) -> None:
        if self.training:
            observe((*self.xb, *self.yb))


def main() -> None:
    set_seed(1)
    training = DataLoader(Points(), bs=4, shuffle=True, num_workers=2)
    checking = DataLoader(Points(12, seed=8), bs=4, num_workers=2)
    learner = Learner(
        DataLoaders(training, checking), network(), loss_func=nn.functional.cross_entropy, cbs=Observer(), lr=0.1
    )
    learner.remove_cb(ProgressCallback)
    learner.fit(2)
    finish(torch.tensor(learner.recorder.values[-1][-1]))


if __name__ == "__main__":
    main()
