"""A PostgreSQL archive: continuous WAL archiving, base backups, and restore to any moment.

    from walarchive import Cluster

    with Cluster(archive="file:///srv/archive", cluster="main", identity_file="/etc/walarchive/key") as main:
        main.init(encrypted=True)
        main.push("pg_wal/000000010000000000000001")
        main.backup()
        main.restore("/srv/restored", "walarchive-fetch %f %p", to="2026-01-31T14:30:00Z")

Settings are those of the programs: ``archive`` is ``WALARCHIVE_ARCHIVE``, and so on. Calls release the interpreter's lock, so that
threads work at once. What fails raises a subclass of :class:`Error`.
"""

from ._cluster import Cluster
from ._errors import (
    AbsentError,
    BugError,
    BusyError,
    CancelledError,
    ConflictError,
    DamagedError,
    DeniedError,
    Error,
    KeyUnusableError,
    LocalError,
    RefusedError,
    UnreachableError,
    UnrestorableError,
    UnsafeTargetError,
    UsageError,
    WrongClusterError,
)
from ._native import ffi as _ffi
from ._native import lib as _lib
from ._progress import Progress
from ._storage import Storage

__version__: str = _ffi.string(_lib.walarchive_version()).decode()

__all__ = [
    "AbsentError",
    "BugError",
    "BusyError",
    "CancelledError",
    "Cluster",
    "ConflictError",
    "DamagedError",
    "DeniedError",
    "Error",
    "KeyUnusableError",
    "LocalError",
    "Progress",
    "RefusedError",
    "Storage",
    "UnreachableError",
    "UnrestorableError",
    "UnsafeTargetError",
    "UsageError",
    "WrongClusterError",
]
