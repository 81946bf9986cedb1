"""How much two threads do in the time of one: pushes the segments of a directory twice, into new archives.

    python3 two_threads.py DIRECTORY SYSTEM_IDENTIFIER
"""

import pathlib
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import walarchive


def seconds(segments, system_id, threads):
    with tempfile.TemporaryDirectory() as directory:
        archive = {"archive": f"file://{directory}/archive", "cluster": "main", "system_id": system_id}
        with walarchive.Cluster(environment={}, **archive) as cluster, ThreadPoolExecutor(threads) as pool:
            cluster.init(encrypted=False)
            begun = time.monotonic()
            list(pool.map(cluster.push, segments))
            return time.monotonic() - begun


if __name__ == "__main__":
    names = sorted(path for path in pathlib.Path(sys.argv[1]).iterdir() if len(path.name) == 24)
    rounds = [[seconds(names, sys.argv[2], threads) for threads in (1, 2)] for _ in range(5)]
    one, two = (sorted(times)[2] for times in zip(*rounds))
    print(f"{len(names)} segments: one thread {one:.2f} s, two {two:.2f} s, {two / one:.2f} of the time")
