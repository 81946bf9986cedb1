"""A real server, whose archive_command is this package, and archives of their own for the tests."""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import pytest

import walarchive

WAL = pathlib.Path(__file__).with_name("wal.py")


def missing(part):
    if os.environ.get("CI"):
        pytest.fail(f"{part} is missing, and CI may not skip")
    pytest.skip(f"SKIPPED: {part} is missing")


def program(name):
    """One of PostgreSQL's programs: of the newest version that is installed, else the one in PATH."""
    versions = pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{name}")
    newest = max(versions, key=lambda path: int(path.parts[-3]), default=None)
    found = newest or shutil.which(name)
    return str(found) if found else missing(name)


class Server:
    """A server in a directory of its own, reached through a socket there."""

    def __init__(self, data_dir, settings):
        self.data_dir = data_dir
        # The path of a socket must be short.
        self.socket = pathlib.Path(tempfile.mkdtemp(prefix="wa-py-"))
        self.environment = {**os.environ, **settings, "PGHOST": str(self.socket), "PGDATABASE": "postgres"}
        self.environment["PGUSER"] = "postgres"

    def run(self, name, *args):
        done = subprocess.run([program(name), *map(str, args)], env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, (name, args, done.stdout, done.stderr)
        return done.stdout.strip()

    def make(self):
        self.run("initdb", "-D", self.data_dir, "-U", "postgres", "--wal-segsize=1", "--no-sync", "-A", "trust")

    def start(self):
        options = (self.data_dir / "postgresql.conf").open("a")
        with options:
            options.write(
                f"listen_addresses = ''\nunix_socket_directories = '{self.socket}'\nfsync = off\n"
                f"archive_mode = on\narchive_command = '{sys.executable} {WAL} push %p'\n"
            )
        self.run("pg_ctl", "-D", self.data_dir, "-w", "-l", self.data_dir.parent / "log", "start")

    def stop(self):
        self.run("pg_ctl", "-D", self.data_dir, "-m", "immediate", "stop")
        shutil.rmtree(self.socket)

    def sql(self, text):
        return self.run("psql", "-XAtc", text)

    def segment(self):
        """A complete segment of its WAL."""
        self.sql("select txid_current()")
        name = self.sql("select pg_walfile_name(pg_current_wal_lsn())")
        self.sql("select pg_switch_wal()")
        return self.data_dir / "pg_wal" / name


def settings_of(directory):
    return {
        "WALARCHIVE_ARCHIVE": f"file://{directory}/archive",
        "WALARCHIVE_CLUSTER": "main",
        "WALARCHIVE_STATE_DIR": f"{directory}/state",
    }


@pytest.fixture(scope="session")
def archived(tmp_path_factory):
    """A server that archives, the settings of its archive, and the archive."""
    if os.geteuid() == 0:
        missing("a user who may run PostgreSQL (root may not)")
    directory = tmp_path_factory.mktemp("server")
    settings = settings_of(directory)
    with walarchive.Cluster(environment=settings) as cluster:
        cluster.init(encrypted=False)
    server = Server(directory / "data", settings)
    server.make()
    server.start()
    connection = f"host={server.socket} user=postgres dbname=postgres"
    environment = {**settings, "PGDATA": str(server.data_dir), "WALARCHIVE_CONNECTION": connection}
    with walarchive.Cluster(environment=environment) as cluster:
        yield server, settings, cluster
    server.stop()


@pytest.fixture
def own(archived, tmp_path):
    """A new archive for the server's WAL."""
    server, _, _ = archived
    with walarchive.Cluster(environment=settings_of(tmp_path), data_dir=server.data_dir) as cluster:
        cluster.init(encrypted=False)
        yield cluster
