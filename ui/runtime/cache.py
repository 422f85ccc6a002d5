"""Values that are made once and kept, however many visitors ask for them at the same time."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class _Entry:
    lock: threading.RLock = field(default_factory=threading.RLock)
    made: bool = False
    value: Any = None


class Cache:
    """Values by their keys. Whoever asks for one that is being made waits for it; others do not wait.

    Args:
        limit: how many are kept, those asked for last; None keeps all.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made now if it is not there. What `make` raises is raised, and nothing is kept."""
        entry = self._entry(key)
        with entry.lock:
            if not entry.made:
                try:
                    entry.value = make()
                except BaseException:
                    self._drop(key, entry)
                    raise
                entry.made = True
            return entry.value

    def _entry(self, key: Hashable) -> _Entry:
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
            while self._limit is not None and len(self._entries) > self._limit:
                self._entries.popitem(last=False)
            return entry

    def _drop(self, key: Hashable, entry: _Entry) -> None:
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]
