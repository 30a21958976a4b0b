"""A mapping that keeps what was used last, within a number and a size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Recent(Generic[_Key, _Value]):
    """At most ``count_max`` values of at most ``bytes_max`` bytes together; ``size_of`` gives a value's bytes.

    A number alone is no bound: what tenants deploy may be of any size. Not safe for threads but for :meth:`peek`.
    """

    def __init__(self, count_max: int, bytes_max: int, size_of: Callable[[_Value], int]) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self._size_of = size_of
        self._values: OrderedDict[_Key, _Value] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: _Key) -> bool:
        return key in self._values

    def peek(self, key: _Key) -> _Value | None:
        """The value of a key, without noting that it was used."""
        return self._values.get(key)

    def get(self, key: _Key) -> _Value | None:
        """The value of a key."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: _Key, value: _Value) -> None:
        """Keep a value in the place of the key's last one, and let go of others until it fits; of itself too."""
        self.drop(key)
        self._values[key] = value
        self.size_bytes += self._size_of(value)
        while len(self._values) > self._count_max or self.size_bytes > self._bytes_max:
            _, gone = self._values.popitem(last=False)
            self.size_bytes -= self._size_of(gone)

    def drop(self, key: _Key) -> None:
        """Let go of a key's value, if it has one."""
        value = self._values.pop(key, None)
        if value is not None:
            self.size_bytes -= self._size_of(value)
