from typing import Any


def resolve_rank(rank: Any, world: Any) -> tuple[int, int]:
    return (rank or 0, world or 1)
