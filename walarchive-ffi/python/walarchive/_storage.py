"""Stores written in Python."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Tuple

from ._errors import AbsentError
from ._native import ffi, lib
from ._progress import inside


class Storage:
    """A store of your own, to be given to :class:`Cluster`: a flat map of keys to objects that never change.

    The methods are called from several threads at once, and must not use a cluster. :class:`AbsentError`, or a ``KeyError`` of the
    very key, means that an object is proven absent; ``ConnectionError`` and ``TimeoutError`` that the store cannot be reached (it is tried
    again); other exceptions are any other failure.
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


def _status(failure: BaseException, key: str) -> int:
    # A mistake in the store must not look like the end of the WAL.
    if isinstance(failure, AbsentError) or isinstance(failure, KeyError) and failure.args == (key,):
        return 1
    return 5 if isinstance(failure, (ConnectionError, TimeoutError)) else 6


class Callbacks:
    """A store as callbacks in C; lives as long as the cluster."""

    def __init__(self, storage: Storage) -> None:
        if not isinstance(storage, Storage):
            raise TypeError(f"storage must be a walarchive.Storage, not {type(storage).__name__}")
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

    def _guarded(self, answer: Any, key: Any, work: Callable[[str], None]) -> int:
        name = ffi.string(key).decode()
        inside.callback = True
        try:
            work(name)
        except BaseException as failure:  # None may cross into C.
            said = f"{type(failure).__name__}: {failure}".replace("\0", "")
            lib.walarchive_answer_message(answer, said.encode("utf-8", "replace"))
            return _status(failure, name)
        finally:
            inside.callback = False
        return 0

    def _do_create(self, _: Any, key: Any, payload: Any, length: int, answer: Any) -> int:
        def work(name: str) -> None:
            is_new = self._storage.create(name, bytes(ffi.buffer(payload, length)))
            if not isinstance(is_new, bool):
                raise TypeError(f"create returned {is_new!r}, which does not tell whether the object is new")
            if not is_new:
                lib.walarchive_answer_exists(answer)

        return self._guarded(answer, key, work)

    def _do_get(self, _: Any, key: Any, offset: int, length: int, answer: Any) -> int:
        def work(name: str) -> None:
            found, size = self._storage.get(name, offset, length)
            lib.walarchive_answer_bytes(answer, ffi.from_buffer(found), len(found))
            lib.walarchive_answer_size(answer, size)

        return self._guarded(answer, key, work)

    def _do_list(self, _: Any, prefix: Any, answer: Any) -> int:
        def work(name: str) -> None:
            for key, size in self._storage.list(name):
                lib.walarchive_answer_entry(answer, key.encode(), size)

        return self._guarded(answer, prefix, work)

    def _do_remove(self, _: Any, key: Any, answer: Any) -> int:
        return self._guarded(answer, key, self._storage.remove)
