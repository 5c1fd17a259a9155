"""A class that stands in for one of its bases: for `isinstance`, the base's instances are its own."""

from typing import Any

from typing_extensions import Protocol  # whose type derives from that of typing's; torch brings it

__all__ = ["StandIn", "stands_in_for"]

stands_in_for: dict[type, type] = {}
"""The base that a class stands in for at present."""


class StandIn(type(Protocol)):  # type: ignore[misc]  # a subclass may also derive from an ABC or a Protocol
    """The type of such classes."""

    def __instancecheck__(cls, instance: Any) -> bool:
        base = stands_in_for.get(cls)
        return (base is not None and isinstance(instance, base)) or bool(super().__instancecheck__(instance))

    def __subclasses__(cls) -> list[type]:
        # Lightning patches the constructors of all classes that derive from the loader.
        base = stands_in_for.get(cls)
        others: list[Any] = [] if base is None else type.__subclasses__(base)
        return [*super().__subclasses__(), *(kind for kind in others if kind is not cls)]

    def __subclasscheck__(cls, subclass: Any) -> bool:
        base = stands_in_for.get(cls)
        return (base is not None and issubclass(subclass, base)) or bool(super().__subclasscheck__(subclass))
