"""Stores written in Python."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Tuple

from ._native import ffi, lib


class Storage:
    """A store of your own, to be given to :class:`Cluster`: a flat map of keys to objects that never change.

    The methods are called from several threads at once, and must not use the cluster that they belong to. ``LookupError`` and
    ``FileNotFoundError`` mean that an object is proven absent, ``ConnectionError`` and ``TimeoutError`` that the store cannot be
    reached (it is tried again), other exceptions any other failure.
    """

    def create(self, key: str, payload: bytes) -> bool:
        """Stores an object whole and durably if there is none of that key; ``False`` where there is one, which stays as it is."""
        raise NotImplementedError

    def get(self, key: str, offset: int, length: int) -> Tuple[bytes, int]:
        """``length`` bytes from ``offset`` on, fewer where the object ends before, and the size of the whole object."""
        raise NotImplementedError

    def list(self, prefix: str) -> Iterable[Tuple[str, int]]:
        """Keys and sizes of all objects whose keys begin with ``prefix``."""
        raise NotImplementedError

    def remove(self, key: str) -> None:
        """Removes an object; that there is none is success, too."""
        raise NotImplementedError


def _status(failure: BaseException) -> int:
    if isinstance(failure, (LookupError, FileNotFoundError)):
        return 1
    return 5 if isinstance(failure, (ConnectionError, TimeoutError)) else 6


class Callbacks:
    """A store as callbacks in C; lives as long as the cluster."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._create = ffi.callback(
            "uint32_t(void *, const char *, const uint8_t *, size_t, walarchive_answer *)", self._do_create
        )
        self._get = ffi.callback(
            "uint32_t(void *, const char *, uint64_t, uint64_t, walarchive_answer *)", self._do_get
        )
        self._list = ffi.callback("uint32_t(void *, const char *, walarchive_answer *)", self._do_list)
        self._remove = ffi.callback("uint32_t(void *, const char *, walarchive_answer *)", self._do_remove)
        self.native = ffi.new(
            "walarchive_storage *",
            {"create": self._create, "get": self._get, "list": self._list, "remove": self._remove},
        )

    def _guarded(self, answer: Any, work: Callable[[], None]) -> int:
        try:
            work()
        except BaseException as failure:  # None may cross into C.
            said = f"{type(failure).__name__}: {failure}".replace("\0", "")
            lib.walarchive_answer_message(answer, said.encode("utf-8", "replace"))
            return _status(failure)
        return 0

    def _do_create(self, _: Any, key: Any, payload: Any, length: int, answer: Any) -> int:
        def work() -> None:
            if not self._storage.create(ffi.string(key).decode(), bytes(ffi.buffer(payload, length))):
                lib.walarchive_answer_exists(answer)

        return self._guarded(answer, work)

    def _do_get(self, _: Any, key: Any, offset: int, length: int, answer: Any) -> int:
        def work() -> None:
            found, size = self._storage.get(ffi.string(key).decode(), offset, length)
            lib.walarchive_answer_bytes(answer, ffi.from_buffer(found), len(found))
            lib.walarchive_answer_size(answer, size)

        return self._guarded(answer, work)

    def _do_list(self, _: Any, prefix: Any, answer: Any) -> int:
        def work() -> None:
            for key, size in self._storage.list(ffi.string(prefix).decode()):
                lib.walarchive_answer_entry(answer, key.encode(), size)

        return self._guarded(answer, work)

    def _do_remove(self, _: Any, key: Any, answer: Any) -> int:
        return self._guarded(answer, lambda: self._storage.remove(ffi.string(key).decode()))
