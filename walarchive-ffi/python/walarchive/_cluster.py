"""One cluster of an archive, and what can be done with it."""

from __future__ import annotations

import json
import os
import threading
from concurrent.futures import Future, wait
from datetime import datetime
from types import TracebackType
from typing import Any, Callable, Dict, List, Mapping, Optional, Type, Union

from ._errors import Error, UsageError, taken
from ._native import ffi, lib
from ._progress import Progress, Watch, inside
from ._storage import Callbacks, Storage

Path = Union[str, "os.PathLike[str]"]
Setting = Union[str, int, "os.PathLike[str]"]
Document = Dict[str, Any]

# What was compiled against another interface would be called wrongly.
_ABI = 1
if lib.walarchive_abi_version() != _ABI:
    raise ImportError(f"the walarchive library has interface {lib.walarchive_abi_version()}, not {_ABI}")


def _string(text: Path) -> bytes:
    """A text for C, which would see a NUL as its end."""
    string = os.fsencode(text)
    if b"\0" in string:
        raise ValueError("embedded null byte")
    return string


def _setting(value: Setting) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else os.fsdecode(value)


def _variables(environment: Mapping[str, str], settings: Mapping[str, Optional[Setting]]) -> List[bytes]:
    variables = dict(environment)
    for name, value in settings.items():
        variable = "PGDATA" if name == "data_dir" else f"WALARCHIVE_{name.upper()}"
        if value is not None:
            variables[variable] = _setting(value)
    return [_string(f"{name}={value}") for name, value in variables.items()]


class Cluster:
    """One cluster of an archive. Any number of threads may use one at once.

    ``settings`` are those of the programs in small letters: ``archive``, ``cluster``, ``recipients``, ``identity_file``,
    ``connection`` and so on; ``data_dir`` is ``PGDATA``. They go before those of ``environment``, which is the environment of this process if nothing else is given,
    and those before the ones of the settings file ``config``. With ``storage`` the archive is in a store of your own.

    Nothing is asked of the archive before the first call that needs it. Use it as a context manager, or :meth:`close` it. A process
    that was forked opens a cluster of its own.
    """

    def __init__(
        self,
        *,
        config: Optional[Path] = None,
        environment: Optional[Mapping[str, str]] = None,
        storage: Optional[Storage] = None,
        **settings: Optional[Setting],
    ) -> None:
        self._condition = threading.Condition()
        self._users = 0
        self._native: Any = None
        self._store = None if storage is None else Callbacks(storage)
        variables = _variables(os.environ if environment is None else environment, settings)
        strings = [ffi.new("char[]", variable) for variable in variables]
        listed = ffi.new("const char *[]", [*strings, ffi.NULL])
        file = ffi.NULL if config is None else ffi.new("char[]", _string(config))
        store = ffi.NULL if self._store is None else self._store.native
        place, error = ffi.new("walarchive_cluster **"), ffi.new("walarchive_error **")
        if lib.walarchive_open_in(file, listed, store, place, error) != 0:
            raise taken(error)
        self._native = place[0]

    def __repr__(self) -> str:
        return f"<walarchive.Cluster {'closed' if self._native is None else 'open'}>"

    def __reduce_ex__(self, protocol: object) -> str:
        raise TypeError("a Cluster cannot be copied or pickled: its connections belong to one object in one process")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        failure: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_native", None) is not None:
            self.close()

    def close(self) -> None:
        """Gives everything back, when the calls of other threads have ended. Closing again does nothing."""
        _refuse_callbacks()
        with self._condition:
            native, self._native = self._native, None
            self._condition.wait_for(lambda: self._users == 0)
        if native is not None:
            lib.walarchive_close(native)

    def _ask(self, call: Callable[[Any, Any], int]) -> None:
        """One call, which is kept from losing its cluster."""
        _refuse_callbacks()
        with self._condition:
            native = self._native
            if native is None:
                raise UsageError("the cluster was closed", 2)
            self._users += 1
        try:
            error = ffi.new("walarchive_error **")
            if call(native, error) != 0:
                raise taken(error)
        finally:
            with self._condition:
                self._users -= 1
                self._condition.notify_all()

    def _document(self, call: Callable[[Any, Any, Any], int]) -> Document:
        """One call that tells something; an error's ``result`` has it as well."""
        place = ffi.new("char **")
        try:
            self._ask(lambda native, error: call(native, place, error))
        except Error as failure:
            failure.result = _json(place)
            raise
        return _json(place) or {}

    def _watched(self, progress: Optional[Progress], call: Callable[[Any], Any]) -> Any:
        """One call that can be ended: by its progress, and in the main thread by signals, which only that one hears."""
        watch = Watch(progress)
        if threading.current_thread() is not threading.main_thread():
            return _outcome(watch, lambda: call(watch.native))
        outcome: Future[Any] = Future()

        def work() -> None:
            try:
                outcome.set_result(_outcome(watch, lambda: call(watch.native)))
            except BaseException as failure:
                outcome.set_exception(failure)

        threading.Thread(target=work, name="walarchive").start()
        while not outcome.done():
            try:
                wait([outcome])
            except BaseException as signal:
                watch.cancel(signal)
        return outcome.result()

    def init(self, *, encrypted: bool = True) -> None:
        """Makes the archive, or finds the one that is there: then nothing is changed."""
        self._ask(lambda native, error: lib.walarchive_init(native, encrypted, error))

    def push(self, file: Path, *, progress: Optional[Progress] = None) -> None:
        """Stores a complete WAL file under its name: afterwards the archive durably holds just this content."""
        self._watched(
            progress,
            lambda watch: self._ask(
                lambda native, error: lib.walarchive_wal_push(native, _string(file), watch, error)
            ),
        )

    def fetch(self, name: str, dest: Path, *, progress: Optional[Progress] = None) -> None:
        """Fetches a WAL file to ``dest``, which appears when every byte was proven."""
        self._watched(
            progress,
            lambda watch: self._ask(
                lambda native, error: lib.walarchive_wal_fetch(
                    native, _string(name), _string(dest), watch, error
                )
            ),
        )

    def wal(self) -> Document:
        """The WAL that is stored, as ``walarchive wal list --json`` tells it."""
        return self._document(lib.walarchive_wal_list)

    def backups(self) -> List[Document]:
        """The backups that are stored, oldest first, as ``walarchive backup list --json`` tells them."""
        found: List[Document] = self._document(lib.walarchive_backup_list)["backups"]
        return found

    def status(self) -> Document:
        """What can be restored and what stands in the way, as ``walarchive status --json`` tells it."""
        return self._document(lib.walarchive_status)

    def backup(self, *, full: bool = False, progress: Optional[Progress] = None) -> Document:
        """Backs up the server that the settings name; the backup, when it is stored and can be restored."""
        return self._told(
            progress,
            lambda watch, native, json, error: lib.walarchive_backup_create(native, full, watch, json, error),
        )

    def restore(
        self,
        target_dir: Path,
        restore_command: str,
        *,
        to: Union[str, datetime, None] = None,
        progress: Optional[Progress] = None,
    ) -> Document:
        """Restores into ``target_dir``, which must be absent or empty. ``to`` is where recovery ends, as ``walarchive restore
        --to`` takes it, or a time with its zone; without it, the newest state. The restored server fetches its WAL with ``restore_command``.
        """
        if isinstance(to, datetime):
            if to.tzinfo is None:
                raise ValueError("the time to restore to has no time zone")
            to = to.isoformat()
        target = ffi.NULL if to is None else ffi.new("char[]", _string(to))
        return self._told(
            progress,
            lambda watch, native, json, error: lib.walarchive_restore(
                native, _string(target_dir), target, _string(restore_command), watch, json, error
            ),
        )

    def verify(self, *, deep: bool = False, progress: Optional[Progress] = None) -> Document:
        """Proves what is stored; with ``deep`` every byte of it. Problems raise the gravest error; its ``result`` tells of all."""
        return self._told(
            progress,
            lambda watch, native, json, error: lib.walarchive_verify(native, deep, watch, json, error),
        )

    def _told(self, progress: Optional[Progress], call: Callable[[Any, Any, Any, Any], int]) -> Document:
        document: Document = self._watched(
            progress,
            lambda watch: self._document(lambda native, json, error: call(watch, native, json, error)),
        )
        return document

    def seal(self, data: Union[bytes, bytearray, memoryview]) -> bytes:
        """Compresses and seals bytes for the settings' recipients, as one age file that needs no archive."""
        view = ffi.from_buffer(data)
        return self._bytes(
            lambda native, to, length, error: lib.walarchive_seal(native, view, len(view), to, length, error)
        )

    def unseal(self, sealed: Union[bytes, bytearray, memoryview], *, limit: int = 1 << 30) -> bytes:
        """Opens what :meth:`seal` made, with an identity of the settings. More than ``limit`` bytes are refused."""
        view = ffi.from_buffer(sealed)
        return self._bytes(
            lambda native, to, length, error: lib.walarchive_unseal(
                native, view, len(view), limit, to, length, error
            )
        )

    def _bytes(self, call: Callable[[Any, Any, Any, Any], int]) -> bytes:
        to, length = ffi.new("uint8_t **"), ffi.new("size_t *")
        self._ask(lambda native, error: call(native, to, length, error))
        try:
            return bytes(ffi.buffer(to[0], length[0]))
        finally:
            lib.walarchive_buffer_free(to[0], length[0])


def _refuse_callbacks() -> None:
    if getattr(inside, "callback", False):
        raise UsageError("a method of a Progress or Storage must not use a cluster: it would wait for itself", 2)


def _outcome(watch: Watch, call: Callable[[], Any]) -> Any:
    """What ``call`` gives, or the exception that has ended it."""
    try:
        return call()
    except Error as error:
        if watch.failure is not None and error.kind == "cancelled":
            raise watch.failure from None
        raise


def _json(place: Any) -> Optional[Document]:
    """The document that a call has left in ``place``, which is freed."""
    if place[0] == ffi.NULL:
        return None
    try:
        document: Document = json.loads(ffi.string(place[0]).decode())
        return document
    finally:
        lib.walarchive_string_free(place[0])
        place[0] = ffi.NULL
