"""Which rank this process is, of how many."""

import os
import sys
from typing import Any

from forebay._seeds import integer
from forebay.errors import ConfigError

__all__ = ["resolve_rank"]


def resolve_rank(rank: int | None = None, world: int | None = None) -> tuple[int, int]:
    """The rank of this process and the number of ranks.

    From the arguments; if there are none, from torch.distributed if the program has imported and initialised it; else
    from the environment variables RANK and WORLD_SIZE, as torchrun sets them; else 0 of 1.

    Raises:
        ConfigError: when only one of the two is known, or they make no sense.

    Example:
        >>> resolve_rank(1, 4)
        (1, 4)
    """
    if rank is None and world is None:
        return _of_torch() or _of_environment() or (0, 1)
    if rank is None or world is None:
        raise ConfigError(f"rank and world belong together, but got rank={rank}, world={world}")
    return _checked(rank, world)


def _of_torch() -> tuple[int, int] | None:
    distributed: Any = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return distributed.get_rank(), distributed.get_world_size()


def _of_environment() -> tuple[int, int] | None:
    names = ("RANK", "WORLD_SIZE")
    found = {name: text for name in names if (text := os.environ.get(name)) is not None}
    if not found:
        return None
    for name, other in zip(names, reversed(names), strict=True):
        if name not in found:
            raise ConfigError(f"environment variable {other}={found[other]}: {name} is not set, and belongs to it")
    rank, world = (_number(name, text) for name, text in found.items())
    if rank >= world:
        raise ConfigError(
            f"environment variable RANK={rank}: rank should be in the interval [0, {world - 1}], by WORLD_SIZE={world}"
        )
    return rank, world


def _number(name: str, text: str) -> int:
    least = 1 if name == "WORLD_SIZE" else 0
    if not text.isascii() or not text.isdigit() or int(text) < least:
        raise ConfigError(f"environment variable {name}={text}: it should be an integer from {least} on")
    return int(text)


def _checked(rank: object, world: object) -> tuple[int, int]:
    of, out_of = integer(rank), integer(world)
    if out_of is None or out_of < 1:
        raise ConfigError(f"world should be a positive integer value, but got world={world!r}")
    if of is None or not 0 <= of < out_of:
        raise ConfigError(f"Invalid rank {rank!r}, rank should be in the interval [0, {out_of - 1}]")
    return of, out_of
