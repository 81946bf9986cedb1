"""archive_command and restore_command: ``wal.py push PATH`` and ``wal.py fetch NAME DEST``, with settings in the environment."""

import sys

import walarchive

try:
    with walarchive.Cluster() as cluster:
        getattr(cluster, sys.argv[1])(*sys.argv[2:])
except walarchive.Error as error:
    print(error, file=sys.stderr)
    sys.exit(error.status)
