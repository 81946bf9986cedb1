"""One exception for each kind of error."""

from __future__ import annotations

from typing import Any, Optional

from ._native import ffi, lib


class Error(Exception):
    """What went wrong: what was attempted, on what, what came of it and what to do.

    ``status`` is the exit code that the programs would have, ``kind`` is finer than it, ``object`` is what the error is about (a key of
    the archive, a file, a server) or ``None``. ``result`` is what was found nevertheless, as by :meth:`Cluster.verify`.
    """

    kind = "unknown"

    def __init__(
        self, message: str, status: int = 70, object: Optional[str] = None, result: Any = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.object = object
        self.result = result


class AbsentError(Error):
    """Proven absent: the archive was reached, and has no such object."""

    kind = "absent"


class UsageError(Error):
    """Wrong usage or configuration."""

    kind = "usage"


class RefusedError(Error):
    """Refused, so that nothing is lost."""


class ConflictError(RefusedError):
    """Other content is stored under that name."""

    kind = "conflict"


class WrongClusterError(RefusedError):
    """The data belongs to another cluster."""

    kind = "wrong-cluster"


class UnsafeTargetError(RefusedError):
    """The target is not safe to write to."""

    kind = "unsafe-target"


class UnrestorableError(RefusedError):
    """What was asked for cannot be reached with what is stored."""

    kind = "unrestorable"


class BusyError(RefusedError):
    """Somebody else holds what is needed."""

    kind = "busy"


class DamagedError(Error):
    """A checksum, tag, length or header does not hold."""

    kind = "damaged"


class KeyUnusableError(Error):
    """No key opens the object, or a key file is unusable."""

    kind = "key"


class UnreachableError(Error):
    """The store or server could not be reached, or did not answer in time."""

    kind = "unreachable"


class DeniedError(Error):
    """The store or server refused the credentials."""

    kind = "denied"


class LocalError(Error):
    """This machine: disk full, permission, local input or output."""

    kind = "local"


class CancelledError(Error):
    """The caller asked for an end."""

    kind = "cancelled"


class BugError(Error):
    """A mistake in walarchive; please report it."""

    kind = "bug"


_BY_KIND = {
    error.kind: error
    for error in (
        AbsentError,
        UsageError,
        ConflictError,
        WrongClusterError,
        UnsafeTargetError,
        UnrestorableError,
        BusyError,
        DamagedError,
        KeyUnusableError,
        UnreachableError,
        DeniedError,
        LocalError,
        CancelledError,
        BugError,
    )
}


def _text(pointer: Any) -> Optional[str]:
    return None if pointer == ffi.NULL else ffi.string(pointer).decode("utf-8", "replace")


def taken(place: Any) -> Error:
    """The exception for the error that a call has left in ``place``, which is freed."""
    native = place[0]
    place[0] = ffi.NULL
    try:
        kind = _BY_KIND.get(_text(lib.walarchive_error_kind(native)) or "", Error)
        message = _text(lib.walarchive_error_message(native)) or "an unknown error"
        status = lib.walarchive_error_status(native)
        return kind(message, status, _text(lib.walarchive_error_object(native)))
    finally:
        lib.walarchive_error_free(native)
