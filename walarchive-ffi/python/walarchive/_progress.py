"""What long work tells while it goes on, and how it is ended."""

from __future__ import annotations

import threading
from typing import Any, Callable, Optional

from ._native import ffi


# What runs inside of a call must not begin another one: that would wait for itself.
inside = threading.local()


class Progress:
    """Hears of the progress of one call; override what is of interest.

    The methods are called from several threads. An exception in any of them ends the call, which cleans up and raises that exception.
    """

    def begin(self, what: str, total: int) -> None:
        """Work of ``total`` bytes begins; ``what`` names it for people."""

    def advance(self, bytes: int) -> None:
        """That many bytes more are done; 0 where it is only asked whether to go on."""

    def note(self, message: str) -> None:
        """Something that people should know meanwhile."""

    def end(self) -> None:
        """The work that began last is over."""


class Watch:
    """A progress as callbacks in C, for one call; the first exception is kept, and ends the call."""

    def __init__(self, progress: Optional[Progress]) -> None:
        self.failure: Optional[BaseException] = None
        self._lock = threading.Lock()
        if not isinstance(progress, (Progress, type(None))):
            raise TypeError(f"progress must be a walarchive.Progress, not {type(progress).__name__}")
        heard = progress or Progress()
        # cffi frees callbacks with these objects: they live as long as the call.
        self._begin = ffi.callback(
            "void(void *, const char *, uint64_t)",
            lambda _, what, total: self._said(lambda: heard.begin(ffi.string(what).decode(), total)),
        )
        self._advance = ffi.callback(
            "bool(void *, uint64_t)", lambda _, count: self._tell(lambda: heard.advance(count))
        )
        self._note = ffi.callback(
            "void(void *, const char *)",
            lambda _, message: self._said(lambda: heard.note(ffi.string(message).decode())),
        )
        self._end = ffi.callback("void(void *)", lambda _: self._said(heard.end))
        self.native = ffi.new(
            "walarchive_progress *",
            {"begin": self._begin, "advance": self._advance, "note": self._note, "end": self._end},
        )

    def cancel(self, failure: BaseException) -> None:
        """Ends the call soon, with this exception."""
        with self._lock:
            self.failure = self.failure or failure

    def _said(self, tell: Callable[[], Any]) -> None:
        self._tell(tell)

    def _tell(self, tell: Callable[[], Any]) -> bool:
        if self.failure is None:
            inside.callback = True
            try:
                tell()
            except BaseException as failure:  # None may cross into C.
                self.cancel(failure)
            finally:
                inside.callback = False
        return self.failure is None
