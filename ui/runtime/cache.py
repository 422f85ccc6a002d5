"""A cache that computes each value once, even if several threads request it at the same time."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class _Entry:
    lock: threading.RLock = field(default_factory=threading.RLock)
    computed: bool = False
    value: Any = None


class Cache:
    """Values by key. Only threads that request the same key wait while its value is computed.

    Args:
        limit: maximum number of cached values; the least recently used are dropped first. None: no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key, and call `make` if it is not cached; an exception of `make` is not cached."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while self._limit is not None and len(self._entries) > self._limit:
                self._entries.popitem(last=False)
        with entry.lock:
            if not entry.computed:
                try:
                    entry.value = make()
                except BaseException:
                    with self._lock:
                        if self._entries.get(key) is entry:
                            del self._entries[key]
                    raise
                entry.computed = True
            return entry.value
