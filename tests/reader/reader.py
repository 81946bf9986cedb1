#!/usr/bin/env python3
"""Reads an archive in a directory, by FORMAT.md alone: shares no code with the program that wrote it.

Needs Python 3.9, and the packages pyrage (age) and zstandard. Objects of codec lz4 are refused: Python has no
LZ4 without a further package. Objects are held in memory whole. Exit codes: 0 done; 1 proven absent; 2 usage;
204 refused or damaged, above 125 so that PostgreSQL stops instead of taking it for the end of its log. A backup
or dump that is refused in the middle leaves DEST incomplete. Dumps are of a cluster, whatever its system
identifier: `dump` takes none.
"""
import argparse
import functools
import json
import os
import re
import struct
import sys

from blake3_py import blake3, derive_key
from sealed import DUMPS, Absent, Archive, Refused, check, crc32c, decode, skippable

PAGE, FRAME, INDEX = 8192, 1 << 20, 0x184D2A58
TIMELINE, SEGMENT = "[0-9A-F]{8}", "[0-9A-F]{24}"
SEGMENT_LIKE = rf"{SEGMENT}(\.partial(\.[0-9a-f]{{16}})?|\.[0-9A-F]{{8}}\.backup)?"
BACKUP = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{8}"


def wal(archive, name):
    if re.fullmatch(rf"{TIMELINE}\.history", name):
        key = f"wal/{name}"
    else:
        check(re.fullmatch(SEGMENT_LIKE, name), f"{name!r} is no WAL file")
        key = f"wal/{name[:8]}/{name[8:16]}/{name}"
    binding, frames = archive.read_decoded(key, "wal")
    data = b"".join(frames)
    digest_key = derive_key(b"walarchive.dev/v1 content digest", archive.id.encode())
    check(blake3(data, digest_key).hex() == binding["digest"], f"{name}: the digest of the content is wrong")
    return data


def backups(archive):
    """The ids of the backups in the order in which they began, which within one second the ids do not tell."""
    ids = [name for name in archive.names("backups") if re.fullmatch(BACKUP, name)]
    ids = [name for name in ids if "manifest" in archive.names(f"backups/{name}")]
    return sorted(ids, key=lambda name: manifest(archive, name)[0]["started_at"].rstrip("Z"))


def manifest(archive, backup):
    """The facts, and the lines between them and the end; of a dump, where the archive is one of dumps."""
    check(re.fullmatch(BACKUP, backup), f"{backup!r} is no backup id")
    wanted = {"format": 1, "type": "base", "id": backup, "cluster": archive.cluster, "system_id": archive.system_id}
    folder = "backups"
    if archive.system_id == DUMPS:
        folder, wanted["type"] = "manifests", "dump"
        del wanted["system_id"]
    _, frames = archive.read_decoded(f"{folder}/{backup}/manifest", "manifest")
    *lines, last, rest = b"".join(frames).split(b"\n")
    end, whole = json.loads(last), b"".join(line + b"\n" for line in lines)
    check(rest == b"" and end.get("end") is True, f"{backup}: the manifest's last line is missing")
    check(end["lines"] == len(lines), f"{backup}: the manifest has {len(lines)} lines, not {end['lines']}")
    check(blake3(whole).hex() == end["digest"], f"{backup}: the manifest's digest is wrong")
    check(frames[0] == lines[0] + b"\n", f"{backup}: the facts do not stand in a frame of their own")
    facts, *entries = map(json.loads, lines)
    check(wanted.items() <= facts.items(), f"{backup}: the manifest is of another backup, or of another kind")
    return facts, entries


@functools.lru_cache(maxsize=4)
def pack(archive, key, stored, index_at, index_len, plain, digest):
    """A pack's codec and its frames as (bytes, length when decoded): checked, not decoded."""
    check(re.fullmatch(rf"{BACKUP}/[0-9]{{8}}", key), f"pack {key!r}")
    try:
        binding, content, size = archive.read(f"packs/{key}", "pack")
    except Absent as error:  # a backup that lost a pack is there, and damaged
        raise Refused(f"pack {key} is missing") from error
    check(size == stored and index_at + index_len == len(content), f"pack {key}: its length is not the manifest's")
    index, length = skippable(content[index_at:], INDEX, f"pack {key}: index")
    check(length == index_len and len(index) % 40 == 0, f"pack {key}: the index has a wrong length")
    check(blake3(index).hex() == digest, f"pack {key}: the digest of the index is wrong")
    frames, at = [], 0
    for size, decoded, sum_ in struct.iter_unpack("<II32s", index):
        frame, at = content[at:at + size], at + size
        paged = archive.system_id == DUMPS or decoded % PAGE == 0
        check(0 < decoded <= FRAME and paged, f"pack {key}: a frame of {decoded} bytes")
        check(at <= index_at and blake3(frame) == sum_, f"pack {key}: frame {len(frames)} has a wrong digest")
        frames.append((frame, decoded))
    check((at, sum(frame[1] for frame in frames)) == (index_at, plain), f"pack {key}: the frames do not add up")
    return binding["codec"], frames


@functools.lru_cache(maxsize=8)
def decoded_frame(codec, frame, length):
    data = b"".join(decode(codec, frame))
    check(len(data) == length, f"a frame decoded to {len(data)} bytes instead of {length}")
    return data


def open_pack(archive, packs, number):
    check(0 <= number < len(packs), f"pack number {number} names nothing")
    facts = (packs[number][name] for name in ("key", "stored", "index_at", "index_len", "plain", "digest"))
    return pack(archive, *facts)


def pages(archive, packs, extent):
    """The data of an extent, in pieces."""
    _, count, number, frame, first = extent
    check(min(count - 1, frame, first) >= 0, f"extent {extent} names nothing")
    codec, frames = open_pack(archive, packs, number)
    while frame < len(frames) and first * PAGE >= frames[frame][1]:
        frame, first = frame + 1, first - frames[frame][1] // PAGE
    while count > 0:
        check(frame < len(frames), f"extent {extent}: the pack has {len(frames)} frames")
        piece = decoded_frame(codec, *frames[frame])[first * PAGE:(first + count) * PAGE]
        yield piece
        count, frame, first = count - len(piece) // PAGE, frame + 1, 0


def zeros(crc, count):
    for _ in range(count // FRAME):
        crc = crc32c(bytes(FRAME), crc)
    return crc32c(bytes(count % FRAME), crc)


def restore_file(archive, packs, entry, path):
    """Writes one file; what no extent names stays a hole."""
    size, at, crc = entry["size"], 0, 0
    with open(path, "xb") as file:
        for extent in entry["extents"]:
            start = extent[0] * PAGE
            check(at <= start < size, f"{path}: extent {extent} is out of order or beyond the end")
            crc, at = zeros(crc, start - at), start
            file.seek(at)
            for piece in pages(archive, packs, extent):
                check(at < size, f"{path}: extent {extent} goes beyond the end")
                piece = piece[:size - at]
                file.write(piece)
                crc, at = crc32c(piece, crc), at + len(piece)
        file.truncate(size)
    check(f"{zeros(crc, size - at):08x}" == entry["crc32c"], f"{path}: CRC-32C is wrong")
    os.chmod(path, entry["mode"])


def path_of(dest, entry, name, seen):
    """Where a directory or a file goes, if its path may be used."""
    path = bytes.fromhex(entry[f"{name}_hex"]) if f"{name}_hex" in entry else entry[name].encode()
    check(not {b"", b".", b".."} & set(path.split(b"/")) and b"\0" not in path, f"path {path!r}")
    check(path not in seen, f"path {path!r} stands twice in the manifest")
    seen.add(path)
    return os.path.join(os.fsencode(dest), path)


def restore(archive, backup, dest):
    facts, entries = manifest(archive, backup)
    os.mkdir(dest, 0o700)
    packs, modes, seen, files, total = [], [], set(), 0, 0
    for entry in entries:
        if "pack" in entry:
            check(entry["pack"] == len(packs), "the packs are out of order")
            packs.append(entry)
        elif entry.keys() & {"dir", "dir_hex"}:
            path = path_of(dest, entry, "dir", seen)
            os.mkdir(path, 0o700)
            modes.append((path, entry["mode"]))
            if entry.get("dir") == "pg_tblspc":  # the links in it stand in the facts alone
                for space in facts["tablespaces"]:
                    os.mkdir(os.path.join(path, b"%d" % space["oid"]), 0o700)
        else:
            check(entry.keys() & {"file", "file_hex"}, f"a line that is nothing known: {entry}")
            restore_file(archive, packs, entry, path_of(dest, entry, "file", seen))
            files, total = files + 1, total + entry["size"]
    for path, mode in reversed(modes):  # last: a mode may forbid writing
        os.chmod(path, mode)
    stated = facts["files"], facts["data_bytes"]
    check((files, total) == stated, f"{files} files of {total} bytes, and the facts say {stated}")
    return {"backup": backup, "files": files, "data_bytes": total}


def stretch(archive, packs, length, number, at):
    """Bytes of a stream, in pieces."""
    check(min(length, at) >= 0, "a stretch of the stream names nothing")
    codec, frames = open_pack(archive, packs, number)
    for frame, size in frames:
        if length > 0 and at < size:
            piece = decoded_frame(codec, frame, size)[at:at + length]
            yield piece
            length -= len(piece)
        at = max(0, at - size)
    check(length == 0, "a stretch of the stream goes beyond its pack")


def restore_dump(archive, dump, dest):
    """Writes a file, or a directory if the dump is one."""
    facts, entries = manifest(archive, dump)
    packs = [entry for entry in entries if "pack" in entry]
    check([entry["pack"] for entry in packs] == list(range(len(packs))), "the packs are out of order")
    streams, names, is_dir = [], set(), facts["dump_format"] == "directory"
    for entry in entries[len(packs):]:
        if "stream" in entry:
            check("/" not in entry["stream"], f"stream {entry['stream']!r}")
            streams.append((entry, path_of(dest, entry, "stream", names) if is_dir else dest, []))
        else:
            check("bytes" in entry and streams, f"a line that is nothing known: {entry}")
            streams[-1][2].extend(entry["bytes"])
    check(is_dir or len(streams) == 1, f"a dump in one file has {len(streams)} streams")
    if is_dir:
        os.mkdir(dest, 0o700)
    for entry, path, stretches in streams:
        data = b"".join(piece for one in stretches for piece in stretch(archive, packs, *one))
        check(len(data) == entry["size"], f"{path}: {len(data)} bytes instead of {entry['size']}")
        check(blake3(data).hex() == entry["digest"], f"{path}: the digest is wrong")
        with open(path, "xb") as file:
            os.chmod(path, 0o600)
            file.write(data)
    total = sum(entry["size"] for entry, _, _ in streams)
    check(total == facts["data_bytes"], f"{total} bytes, and the facts say {facts['data_bytes']}")
    return {"dump": dump, "database": facts["database"], "format": facts["dump_format"], "data_bytes": total}


def listing(archive):
    names = [name for one in archive.names("wal") if re.fullmatch(TIMELINE, one)
             for two in archive.names(f"wal/{one}") for name in archive.names(f"wal/{one}/{two}")]
    history = [name for name in archive.names("wal") if name.endswith(".history")]
    names = history + [name for name in names if re.fullmatch(SEGMENT_LIKE, name)]
    return {"backups": [manifest(archive, backup)[0] for backup in backups(archive)], "wal": names}


def write_whole(dest, data):
    """DEST appears with all of its content or not at all."""
    temporary = f"{dest}.reading"
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, dest)


def arguments():
    parser = argparse.ArgumentParser(description="reads an archive without the program that wrote it")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, more in (("wal", ("system_id", "name", "dest")), ("backup", ("system_id", "backup", "dest")),
                       ("list", ("system_id",)), ("dump", ("dump", "dest"))):
        command = commands.add_parser(name)
        command.add_argument("archive_dir")
        command.add_argument("--identity", metavar="FILE", help="the identities of an encrypted archive")
        for argument in ("cluster", *more):
            command.add_argument(argument)
    return parser.parse_args()


def run(args):
    system_id = DUMPS if args.command == "dump" else args.system_id
    archive = Archive(args.archive_dir, args.identity, args.cluster, system_id)
    if args.command == "dump":
        print(json.dumps(restore_dump(archive, args.dump, args.dest)))
    elif args.command == "wal":
        write_whole(args.dest, wal(archive, args.name))
    elif args.command == "list":
        print(json.dumps(listing(archive), indent=1))
    else:
        found = backups(archive) if args.backup == "latest" else [args.backup]
        if not found:
            raise Absent("any backup")
        backup = found[-1]
        print(json.dumps(restore(archive, backup, args.dest)))


def main():
    args = arguments()
    try:
        run(args)
    except Absent as error:
        print(f"absent: {error}", file=sys.stderr)
        return 1
    except Exception as error:  # whatever it is, it must not look like the end of the log
        print(f"refused: {error if isinstance(error, (Refused, OSError)) else repr(error)}", file=sys.stderr)
        return 204
    return 0


if __name__ == "__main__":
    sys.exit(main())
