#!/usr/bin/env bash
# How the golden archive of a format version is made: once, when the version is new. Never make one again: it is kept to
# prove that later programs read it. The segments before the backup's first one were removed afterwards, to keep it small.
#   make.sh BIN_DIR OUT_DIR      as an unprivileged user, with PostgreSQL's programs in PATH
set -euo pipefail
bin=$1 out=$2
work=$(mktemp -d)
trap 'pg_ctl -D "$work/data" -m immediate stop >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
mkdir -p "$out"
export PGHOST=$work PGUSER=postgres PGDATABASE=postgres WALARCHIVE_CLUSTER=golden
export WALARCHIVE_BACKUP_CODEC=xz:9 WALARCHIVE_WAL_CODEC=zstd:19

"$bin/walarchive" key generate -o "$out/identity.txt"
WALARCHIVE_RECIPIENTS=$("$bin/walarchive" key show "$out/identity.txt")
export WALARCHIVE_RECIPIENTS WALARCHIVE_ARCHIVE=file://$out/encrypted
"$bin/walarchive" init
WALARCHIVE_ARCHIVE=file://$out/plain "$bin/walarchive" init --no-encryption

initdb -D "$work/data" -A trust -U postgres --data-checksums --wal-segsize=1 --locale=C -E UTF8 >/dev/null
cat >>"$work/data/postgresql.conf" <<CONF
listen_addresses = ''
unix_socket_directories = '$work'
archive_mode = on
archive_command = 'env WALARCHIVE_ARCHIVE=$WALARCHIVE_ARCHIVE WALARCHIVE_RECIPIENTS=$WALARCHIVE_RECIPIENTS $bin/walarchive-push %p && env WALARCHIVE_ARCHIVE=file://$out/plain $bin/walarchive-push %p'
CONF
pg_ctl -D "$work/data" -l "$work/log" -w start >/dev/null
sql() { psql -qAtX -c "$1"; }
# As little as possible: one database.
sql 'UPDATE pg_database SET datistemplate = false'
sql 'DROP DATABASE template0'
sql 'DROP DATABASE template1'
sql 'VACUUM FULL'
sql 'CREATE TABLE golden AS SELECT n, md5(n::text) FROM generate_series(1, 100) n'
PGDATA=$work/data "$bin/walarchive" backup create --label made=once
sql 'INSERT INTO golden SELECT n, md5(n::text) FROM generate_series(101, 150) n'
sql "SELECT pg_create_restore_point('golden')"
sql 'INSERT INTO golden SELECT n, md5(n::text) FROM generate_series(151, 200) n'
last=$(sql "SELECT pg_walfile_name(pg_current_wal_lsn())")
sql 'SELECT pg_switch_wal()'
until [ -e "$work/data/pg_wal/archive_status/$last.done" ]; do sleep 0.2; done
# The same segment with every codec, and a timeline history, in the plain archive.
for codec in lz4 gzip xz none; do
    WALARCHIVE_CLUSTER=golden-$codec WALARCHIVE_WAL_CODEC=$codec WALARCHIVE_ARCHIVE=file://$out/plain \
        "$bin/walarchive" wal push "$work/data/pg_wal/$last"
done
printf '1\t0/100000\tgolden\n' >"$work/data/pg_wal/00000002.history"
for place in encrypted plain; do
    WALARCHIVE_ARCHIVE=file://$out/$place WALARCHIVE_CLUSTER=history "$bin/walarchive" wal push "$work/data/pg_wal/00000002.history"
done
sha256sum "$work/data/pg_wal/$last" | cut -d' ' -f1 >"$out/segment.sha256"
echo "$last" >"$out/segment.name"
find "$out" -type f -exec chmod 644 {} +
