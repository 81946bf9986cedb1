import copy
import datetime
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import threading

import pytest

import walarchive
from conftest import WAL, Server, missing, settings_of


def test_a_segment_goes_in_and_comes_back(archived, own, tmp_path):
    segment = archived[0].segment()
    own.push(segment)
    own.push(segment)
    own.fetch(segment.name, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == segment.read_bytes()
    [timeline] = own.wal()["timelines"]
    assert timeline["segments"] == 1
    assert own.status()["wal"]["stored_bytes"] > 0


def test_errors_are_of_their_kinds(archived, own, tmp_path):
    segment = archived[0].segment()
    own.push(segment)
    with pytest.raises(walarchive.AbsentError) as caught:
        own.fetch("00000001000000AA000000AA", tmp_path / "copy")
    assert caught.value.status == 1 and "00000001000000AA000000AA" in caught.value.object
    assert not (tmp_path / "copy").exists()

    changed = tmp_path / segment.name
    content = bytearray(segment.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    with pytest.raises(walarchive.RefusedError) as caught:
        with_id = archived[1] | {"WALARCHIVE_ARCHIVE": f"file://{tmp_path}/archive"}
        system = own.status() and archived[0].run("pg_controldata", archived[0].data_dir)
        system = next(line.split()[-1] for line in system.splitlines() if "system identifier" in line)
        with walarchive.Cluster(environment=with_id, system_id=system) as cluster:
            cluster.push(changed)
    assert type(caught.value) is walarchive.ConflictError and caught.value.status == 3

    for wrong in [{"environment": {"WALARCHIVE_NONSENSE": "1"}}, {"environment": {}, "nonsense": "1"}]:
        with pytest.raises(walarchive.UsageError, match="NONSENSE"):
            walarchive.Cluster(**wrong)
    with pytest.raises(walarchive.UsageError):
        own.push("no/such/name")


def test_what_c_would_misread_is_refused(own, tmp_path):
    with pytest.raises(ValueError, match="null"):
        own.push(f"{tmp_path}/000000010000000000000001\0.txt")
    for nonsense in (None, 7):
        with pytest.raises(TypeError):
            own.push(nonsense)
    with pytest.raises(walarchive.UsageError, match="UTF-8"):
        own.push(b"\xff")
    with walarchive.Cluster(environment=settings_of(tmp_path), store_path_style=True, backup_keep_last=3) as cluster:
        assert cluster.status()["latest_backup"] is None and "open" in repr(cluster)


def test_a_cluster_is_not_copied(own):
    for refused in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied or pickled"):
            refused(own)
    assert own.wal()["timelines"] == []


def test_callbacks_must_not_use_clusters(archived, own):
    own.push(archived[0].segment())

    class Closing(walarchive.Progress):
        def __init__(self, call):
            self.advance = lambda bytes: call()

    for call in (own.close, own.wal, walarchive.Cluster(environment=archived[1]).wal):
        with pytest.raises(walarchive.UsageError, match="wait for itself"):
            own.verify(deep=True, progress=Closing(call))
    with pytest.raises(TypeError, match="walarchive.Progress"):
        own.verify(progress=5)


def test_nothing_is_made_or_restored_that_could_not_be_used(archived, tmp_path):
    with walarchive.Cluster(environment=settings_of(tmp_path)) as cluster:
        with pytest.raises(walarchive.UsageError, match="nobody could read"):
            cluster.init(encrypted=True)
    assert not (tmp_path / "archive" / "archive.json").exists()
    with pytest.raises(walarchive.UsageError, match="restore_command is empty"):
        archived[2].restore(tmp_path / "restored", " ")
    with pytest.raises(ValueError, match="zone"):
        archived[2].restore(tmp_path / "restored", "x", to=datetime.datetime(2026, 1, 31))
    assert not (tmp_path / "restored").exists()


def test_a_forked_process_is_told_to_open_its_own(archived, own):
    own.push(archived[0].segment())
    child = os.fork()
    if child == 0:
        code = 2
        try:
            own.wal()
        except walarchive.UsageError as error:
            own.close()
            code = 0 if "another process" in str(error) else 1
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert own.wal()["timelines"]


def test_damage_is_told_with_all_that_was_found(archived, own, tmp_path):
    own.push(archived[0].segment())
    [stored] = [path for path in (tmp_path / "archive").rglob("*") if path.is_file() and path.parent.name == "00000001"] or [
        path for path in (tmp_path / "archive").rglob("00000001*") if path.is_file()
    ]
    content = bytearray(stored.read_bytes())
    content[-5] ^= 1
    stored.chmod(0o600)
    stored.write_bytes(content)
    with pytest.raises(walarchive.DamagedError) as caught:
        own.verify(deep=True)
    [problem] = caught.value.result["problems"]
    assert stored.name in str(problem)
    with pytest.raises(walarchive.DamagedError):
        own.fetch(stored.name.split(".")[0], tmp_path / "copy")


def test_a_store_that_does_not_answer_is_unreachable():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    environment = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
    with walarchive.Cluster(
        environment=environment,
        archive="s3://bucket/archive",
        cluster="main",
        store_endpoint=f"http://127.0.0.1:{port}",
        store_allow_http="true",
        store_retry_budget="1s",
        retry_budget="1s",
    ) as cluster:
        with pytest.raises(walarchive.UnreachableError) as caught:
            cluster.backups()
    assert caught.value.status == 5


def test_a_backup_is_restored_and_starts(archived, tmp_path):
    server, settings, cluster = archived
    server.sql("create table kept as select generate_series(1, 1000) as n")

    class Heard(walarchive.Progress):
        begun, bytes, ended = [], 0, 0

        def begin(self, what, total):
            self.begun.append((what, total))

        def advance(self, bytes):
            type(self).bytes += bytes

        def end(self):
            type(self).ended += 1

    backup = cluster.backup(progress=Heard())
    assert Heard.begun and Heard.bytes > 1_000_000 and Heard.ended
    assert backup["id"] in [stored["id"] for stored in cluster.backups()]
    assert cluster.verify(deep=True)["ok"]
    server.sql("insert into kept select 0")
    server.segment()
    future = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(days=1)
    with pytest.raises(walarchive.UnrestorableError):
        cluster.restore(tmp_path / "future", "x", to=future)
    assert not (tmp_path / "future").exists()

    target = tmp_path / "restored"
    told = cluster.restore(target, f"{sys.executable} {WAL} fetch %f %p")
    assert told["backup"] == backup["id"]
    restored = Server(target, settings)
    restored.start()
    try:
        assert restored.sql("select count(*) from kept") in ("1000", "1001")
    finally:
        restored.stop()


def test_what_its_progress_raises_ends_a_backup(archived):
    _, _, cluster = archived
    before = cluster.backups()

    class Enough(Exception):
        pass

    class Impatient(walarchive.Progress):
        def advance(self, bytes):
            raise Enough("enough")

    with pytest.raises(Enough):
        cluster.backup(full=True, progress=Impatient())
    assert cluster.backups() == before


class Silent:
    """A server that takes connections and never answers."""

    def __enter__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        return f"http://127.0.0.1:{self.socket.getsockname()[1]}"

    def __exit__(self, *_):
        self.socket.close()


SILENT = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
SILENT |= {
    "WALARCHIVE_ARCHIVE": "s3://bucket/archive",
    "WALARCHIVE_CLUSTER": "main",
    "WALARCHIVE_STORE_ALLOW_HTTP": "true",
}


def test_other_threads_go_on_during_a_call(archived):
    segment = archived[0].segment()
    enough, raised = threading.Event(), []

    class UntilEnough(walarchive.Progress):
        def advance(self, bytes):
            if enough.is_set():
                raise StopIteration

    with Silent() as endpoint, walarchive.Cluster(environment=SILENT, store_endpoint=endpoint) as cluster:

        def push():
            try:
                cluster.push(segment, progress=UntilEnough())
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=push)
        thread.start()
        # Were the lock held, this would not be reached before the call had failed by itself.
        enough.set()
        thread.join(20)
        assert not thread.is_alive()
    assert [type(error) for error in raised] == [StopIteration]


def test_an_interrupt_ends_a_call(archived, tmp_path):
    # Where a shell has put all this into the background, interrupts are ignored.
    script = "import signal, sys, walarchive; signal.signal(signal.SIGINT, signal.default_int_handler);"
    script += "c = walarchive.Cluster(); print('begun', flush=True); c.push(sys.argv[1])"
    with Silent() as endpoint:
        environment = SILENT | {"WALARCHIVE_STORE_ENDPOINT": endpoint, "PYTHONPATH": ":".join(sys.path)}
        pushing = subprocess.Popen(
            [sys.executable, "-c", script, archived[0].segment()],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert pushing.stdout.readline() == "begun\n"
        with pytest.raises(subprocess.TimeoutExpired):
            pushing.wait(1)
        pushing.send_signal(signal.SIGINT)
        _, stderr = pushing.communicate(timeout=20)
    assert pushing.returncode == -signal.SIGINT, stderr
    assert "KeyboardInterrupt" in stderr


def test_a_closed_cluster_says_so_and_waits_for_calls(archived, tmp_path):
    with walarchive.Cluster(environment=settings_of(tmp_path)) as cluster:
        cluster.init(encrypted=False)
    cluster.close()
    with pytest.raises(walarchive.UsageError, match="closed"):
        cluster.wal()

    begun, go_on = threading.Event(), threading.Event()

    class Slow(InMemory):
        def get(self, key, offset, length):
            begun.set()
            assert go_on.wait(20)
            return super().get(key, offset, length)

    slow = walarchive.Cluster(environment={}, cluster="main", storage=Slow())
    go_on.set()
    slow.init(encrypted=False)
    go_on.clear()
    begun.clear()
    caller = threading.Thread(target=lambda: pytest.raises(walarchive.Error, slow.wal))
    caller.start()
    assert begun.wait(20)
    closer = threading.Thread(target=slow.close)
    closer.start()
    closer.join(0.3)
    assert closer.is_alive()
    go_on.set()
    closer.join(20)
    assert not closer.is_alive()
    caller.join(20)


class InMemory(walarchive.Storage):
    def __init__(self):
        self.objects = {}

    def create(self, key, payload):
        return self.objects.setdefault(key, payload) is payload

    def get(self, key, offset, length):
        found = self.objects[key]
        return found[offset : offset + length], len(found)

    def list(self, prefix):
        return [(key, len(found)) for key, found in self.objects.items() if key.startswith(prefix)]

    def remove(self, key):
        self.objects.pop(key, None)


def test_stores_are_written_in_python(archived, tmp_path):
    segment, store = archived[0].segment(), InMemory()
    data_dir = archived[0].data_dir
    with walarchive.Cluster(
        environment={}, cluster="main", data_dir=data_dir, storage=store, retry_budget="1s"
    ) as cluster:
        cluster.init(encrypted=False)
        cluster.push(segment)
        cluster.fetch(segment.name, tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == segment.read_bytes()
        assert cluster.verify(deep=True)["ok"] and len(store.objects) == 2

        store.get = lambda *_: (_ for _ in ()).throw(ConnectionResetError("the cable is out"))
        with pytest.raises(walarchive.UnreachableError, match="the cable is out"):
            cluster.fetch(segment.name, tmp_path / "other")
        # A mistake in the store is no proof of absence.
        for mistake in (lambda *_: "nonsense", lambda *_: {}["typo"], lambda *_: open("/no/such/mount")):
            store.get = mistake
            with pytest.raises(walarchive.LocalError):
                cluster.fetch(segment.name, tmp_path / "other")
    forgetful = InMemory()
    forgetful.create = lambda *_: None
    with walarchive.Cluster(environment={}, cluster="main", storage=forgetful) as cluster:
        with pytest.raises(walarchive.LocalError, match="does not tell"):
            cluster.init(encrypted=False)
    assert not (tmp_path / "other").exists()


def test_buffers_are_sealed_and_opened(tmp_path):
    age = shutil.which("age-keygen") or missing("age")
    keys = tmp_path / "identity"
    subprocess.run([age, "-o", str(keys)], check=True, capture_output=True)
    secret = b"what nobody else may read \0" * 1000
    settings = settings_of(tmp_path)
    with walarchive.Cluster(environment=settings, identity_file=keys) as cluster:
        sealed = cluster.seal(secret)
        assert cluster.unseal(sealed) == secret and cluster.unseal(cluster.seal(b"")) == b""
        with pytest.raises(walarchive.DamagedError):
            cluster.unseal(sealed, limit=len(secret) - 1)
        with pytest.raises(walarchive.DamagedError):
            cluster.unseal(sealed[:-1])
    opened = subprocess.run([shutil.which("age"), "-d", "-i", str(keys)], input=sealed, capture_output=True, check=True)
    unpacked = subprocess.run([shutil.which("zstd"), "-dc"], input=opened.stdout, capture_output=True, check=True)
    assert unpacked.stdout == secret

    other = tmp_path / "other"
    subprocess.run([age, "-o", str(other)], check=True, capture_output=True)
    with walarchive.Cluster(environment=settings, identity_file=other) as stranger:
        with pytest.raises(walarchive.KeyUnusableError):
            stranger.unseal(sealed)
    with walarchive.Cluster(environment=settings) as keyless:
        with pytest.raises(walarchive.UsageError):
            keyless.seal(secret)
