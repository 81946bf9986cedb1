"""The reader itself: its checksums against published vectors, and what it has to refuse."""
import gzip
import json
import shutil
import struct
import tempfile
import unittest
from pathlib import Path

import reader
from blake3_py import blake3, derive_key
from sealed import Absent, Archive, Refused, crc32c

KEY, CONTEXT = b"whats the Elvish word for friend", b"BLAKE3 2019-12-27 16:29:52 test vectors context"
# From BLAKE3's test_vectors.json: length of the input (0, 1, …, 250, 0, 1, …), hash, keyed hash, derive key.
VECTORS = (
    (0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
     "92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26",
     "2cc39783c223154fea8dfb7c1b1660f2ac2dcbd1c1de8277b0b0dd39b7e50d7d"),
    (1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213",
     "6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b",
     "b3e2e340a117a499c6cf2398a19ee0d29cca2bb7404c73063382693bf66cb06c"),
    (1023, "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11",
     "c951ecdf03288d0fcc96ee3413563d8a6d3589547f2c2fb36d9786470f1b9d6e",
     "74a16c1c3d44368a86e1ca6df64be6a2f64cce8f09220787450722d85725dea5"),
    (1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7",
     "75c46f6f3d9eb4f55ecaaee480db732e6c2105546f1e675003687c31719c7ba4",
     "7356cd7720d5b66b6d0697eb3177d9f8d73a4a5c5e968896eb6a689684302706"),
    (1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444",
     "357dc55de0c7e382c900fd6e320acc04146be01db6a8ce7210b7189bd664ea69",
     "effaa245f065fbf82ac186839a249707c3bddf6d3fdda22d1b95a3c970379bcb"),
    (2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030",
     "9f29700902f7c86e514ddc4df1e3049f258b2472b6dd5267f61bf13983b78dd5",
     "2ea477c5515cc3dd606512ee72bb3e0e758cfae7232826f35fb98ca1bcbdf273"),
    (5121, "628bd2cb2004694adaab7bbd778a25df25c47b9d4155a55f8fbd79f2fe154cff",
     "6ccf1c34753e7a044db80798ecd0782a8f76f33563accaddbfbb2e0ea4b2d024",
     "b07f01e518e702f7ccb44a267e9e112d403a7b3f4883a47ffbed4b48339b3c34"),
    (8193, "bab6c09cb8ce8cf459261398d2e7aef35700bf488116ceb94a36d0f5f1b7bc3b",
     "954a2a75420c8d6547e3ba5b98d963e6fa6491addc8c023189cc519821b4a1f5",
     "af1e0346e389b17c23200270a64aa4e1ead98c61695d917de7d5b00491c9b0f1"),
    (31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47",
     "efa53b389ab67c593dba624d898d0f7353ab99e4ac9d42302ee64cbf9939a419",
     "39772aef80e0ebe60596361e45b061e8f417429d529171b6764468c22928e28e"),
    (102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085",
     "1c35d1a5811083fd7119f5d5d1ba027b4d01c0c6c49fb6ff2cf75393ea5db4a7",
     "4652cff7a3f385a6103b5c260fc1593e13c778dbe608efb092fe7ee69df6e9c6"),
)


class Published(unittest.TestCase):
    def test_blake3(self):
        for length, plain, keyed, derived in VECTORS:
            data = (bytes(range(251)) * (length // 251 + 1))[:length]
            with self.subTest(length=length):
                self.assertEqual(blake3(data).hex(), plain)
                self.assertEqual(blake3(data, KEY).hex(), keyed)
                self.assertEqual(derive_key(CONTEXT, data).hex(), derived)

    def test_crc32c(self):
        # RFC 3720, B.4, in the order of a number's digits; and the check value of the polynomial.
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        self.assertEqual(crc32c(b"\xff" * 32), 0x62A8AB43)
        self.assertEqual(crc32c(bytes(range(32))), 0x46DD794E)
        self.assertEqual(crc32c(b"6789", crc32c(b"12345")), 0xE3069283)


ARCHIVE, SYSTEM, BACKUP = "00112233445566778899aabbccddeeff", "7000000000000000001", "20260102T030405Z-0a0b0c0d"
PACK = "packs/20251231T000000Z-00000001/00000000"  # of an older backup, as in an incremental one


def line(entry):
    return json.dumps(entry).encode() + b"\n"


class Refusals(unittest.TestCase):
    """A plain archive, written here by the same description, and then wrong in one thing at a time."""

    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root, self.dest = Path(scratch.name), Path(scratch.name) / "restored"
        self.archive_json()
        self.put_pack()
        self.put_manifest()

    def archive_json(self, **changes):
        facts = {"format": 1, "archive": ARCHIVE, "created": "2026-01-02T03:04:05Z", "encrypted": False, **changes}
        (self.root / "archive.json").write_text(json.dumps(facts))

    def put(self, name, form, content, place=None, room=SYSTEM, **changes):
        key = f"main/{room}/{name}"
        binding = {"v": 1, "archive": ARCHIVE, "key": key, "kind": form, "codec": "gzip", **changes}
        binding = json.dumps(binding).encode()
        head = struct.pack("<II", 0x184D2A57, len(binding) + 32) + binding + blake3(binding)
        path = self.root / "main" / room / place if place else self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(head + content)
        return len(head) + len(content)

    def put_pack(self, plain=(b"a" * 8192 + b"b" * 8192, b"c" * 8192), **changes):
        """Two frames, of two pages and of one, if nothing else is said."""
        frames = [gzip.compress(data) for data in plain]
        body = b"".join(struct.pack("<II", len(frame), len(data)) + blake3(frame) for frame, data in zip(frames, plain))
        index = struct.pack("<II", 0x184D2A58, len(body)) + body
        size = self.put(PACK, "pack", b"".join(frames) + index, **changes)
        self.pack = {"pack": 0, "key": PACK[6:], "stored": size, "index_at": sum(map(len, frames)),
                     "index_len": len(index), "plain": sum(map(len, plain)), "digest": blake3(body).hex()}

    def put_manifest(self, facts={}, pack={}, file={}, more=(), end={}, ended=True, **changes):
        """A file of five pages: a hole, b, c without its last bytes."""
        content = bytes(3 * 8192) + b"b" * 8192 + b"c" * 8000
        lines = [
            {"format": 1, "type": "base", "id": BACKUP, "cluster": "main", "system_id": SYSTEM, "files": 1,
             "data_bytes": len(content), **facts}, {**self.pack, **pack}, {"dir": "base", "mode": 0o700},
            {"file": "base/1", "mode": 0o600, "size": len(content), "crc32c": f"{crc32c(content):08x}",
             "extents": [[3, 2, 0, 0, 1]], **file}, *more]
        self.put(f"backups/{BACKUP}/manifest", "manifest", self.stored(lines, end, ended), **changes)
        return content

    def stored(self, lines, end={}, ended=True):
        lines = [line(entry) for entry in lines]
        whole = b"".join(lines)
        last = line({"end": True, "lines": len(lines), "digest": blake3(whole).hex(), **end}) if ended else b""
        return gzip.compress(lines[0]) + gzip.compress(b"".join(lines[1:]) + last)

    def put_dump(self, streams=None, digest=None, **facts):
        """Bytes of two frames, the later ones first; or other streams."""
        self.put_pack((b"hello ", b"world"), room="dumps")
        content, stretches = b"world hello", [[5, 0, 6], [1, 0, 5], [5, 0, 0]]
        if streams is None:
            streams = [{"stream": "dump", "size": 11, "digest": digest or blake3(content).hex()},
                       {"bytes": stretches[:1]}, {"bytes": stretches[1:]}]
        lines = [{"format": 1, "type": "dump", "id": BACKUP, "cluster": "main", "database": "a/b",
                  "content": "database", "dump_format": "custom", "data_bytes": 11, **facts}, self.pack, *streams]
        self.put(f"manifests/{BACKUP}/manifest", "manifest", self.stored(lines), room="dumps")
        return content

    def restore(self):
        return reader.restore(Archive(self.root, None, "main", SYSTEM), BACKUP, self.dest)

    def refuses(self, why, read=None):
        with self.assertRaisesRegex(Refused, why):
            (read or self.restore)()
        shutil.rmtree(self.dest, ignore_errors=True)

    def test_what_is_right_is_restored(self):
        content = self.put_manifest()
        self.restore()
        self.assertEqual((self.dest / "base/1").read_bytes(), content)

    def test_heads(self):
        self.archive_json(format=2)
        self.refuses("format 2")
        self.archive_json(archive="f" * 32)
        self.refuses("archive is")
        self.archive_json()
        for changes, why in (({"key": f"main/{SYSTEM}/other"}, "key is"), ({"kind": "wal"}, "kind is"),
                             ({"v": 2}, "v is"), ({"sum": "0" * 64}, "sum"), ({"stored": 1}, "stored"),
                             ({"codec": "lz4"}, "lz4")):
            self.put_manifest(**changes)
            self.refuses(why)
        self.put_manifest()
        manifest = self.root / "main" / SYSTEM / "backups" / BACKUP / "manifest"
        manifest.write_bytes(manifest.read_bytes().replace(b'"v": 1', b'"v": 3'))
        self.refuses("digest")
        manifest.write_bytes(b"age-encryption.org/v1\n-> walarchive.dev/v1\ne30\n--- x\n")
        self.refuses("head of a plain object")

    def test_manifests(self):
        file = {"file": "base/2", "mode": 0o600, "size": 0, "crc32c": "00000000", "extents": []}
        for changes, why in (
                ({"ended": False}, "last line"), ({"end": {"lines": 3}}, "lines"),
                ({"end": {"digest": "0" * 64}}, "digest"),
                ({"facts": {"id": "other"}}, "another"), ({"facts": {"type": "dump"}}, "another"),
                ({"facts": {"files": 2}}, "facts"), ({"file": {"crc32c": "00000000"}}, "CRC"),
                ({"more": [{**file, "file": "../x"}]}, "path"), ({"more": [{**file, "file": "/x"}]}, "path"),
                ({"more": [{**file, "file": "base/1"}]}, "twice"), ({"more": [{"strange": 1}]}, "nothing known"),
                ({"file": {"extents": [[3, 1, 0, 0, 1], [3, 1, 0, 1, 0]]}}, "out of order"),
                ({"file": {"extents": [[4, 2, 0, 0, 1]]}}, "beyond"),
                ({"file": {"extents": [[3, 2, 1, 0, 1]]}}, "names nothing"),
                ({"file": {"extents": [[3, 3, 0, 0, 1]]}}, "frames"),
                ({"file": {"extents": [[3, 1, 0, 0, 99]]}}, "frames")):
            with self.subTest(why=why):
                self.put_manifest(**changes)
                self.refuses(why)

    def test_packs(self):
        for changes, why in (({"digest": "0" * 64}, "digest of the index"), ({"stored": 1}, "length"),
                             ({"plain": 1}, "add up"), ({"index_at": 0}, "length"),
                             ({"key": f"{BACKUP}/00000001"}, "missing")):
            with self.subTest(why=why):
                self.put_manifest(pack=changes)
                self.refuses(why)
        self.put_manifest()
        path = self.root / "main" / SYSTEM / PACK
        data = bytearray(path.read_bytes())
        data[-self.pack["index_len"] - 12] ^= 1
        path.write_bytes(data)
        self.refuses("frame 1 has a wrong digest")

    def test_dumps(self):
        def dump():
            self.dest.unlink(missing_ok=True)
            return reader.restore_dump(Archive(self.root, None, "main", "dumps"), BACKUP, self.dest)

        content = self.put_dump()
        dump()
        self.assertEqual(self.dest.read_bytes(), content)
        self.put_dump(dump_format="directory")
        self.dest.unlink()
        dump()
        self.assertEqual((self.dest / "dump").read_bytes(), content)
        shutil.rmtree(self.dest)
        record = {"stream": "dump", "size": 11, "digest": blake3(content).hex()}
        for changes, why in (
                ({"digest": "0" * 64}, "digest"), ({"type": "base"}, "another"), ({"data_bytes": 12}, "facts"),
                ({"streams": []}, "0 streams"), ({"streams": [record]}, "0 bytes"),
                ({"streams": [{"bytes": []}]}, "nothing known"),
                ({"streams": [record, {"bytes": [[12, 0, 0]]}]}, "beyond"),
                ({"streams": [record, {"bytes": [[1, 1, 0]]}]}, "names nothing"),
                ({"streams": [record, {"bytes": [[1, 0, -1]]}]}, "names nothing"),
                ({"dump_format": "directory", "streams": [{**record, "stream": "../x"}]}, "stream"),
                ({"dump_format": "directory", "streams": [{**record, "stream": ".."}]}, "path")):
            with self.subTest(why=why):
                self.put_dump(**changes)
                self.refuses(why, dump)
        self.put_pack((b"x",))
        self.put_manifest()
        self.refuses("a frame of 1 bytes")

    def test_wal(self):
        name, content = "00000001000000000000000A", b"log" * 1000
        digest = blake3(content, derive_key(b"walarchive.dev/v1 content digest", ARCHIVE.encode())).hex()
        archive = Archive(self.root, None, "main", SYSTEM)
        key = f"wal/00000001/00000000/{name}"
        with self.assertRaises(Absent):
            reader.wal(archive, name)
        self.put(key, "wal", gzip.compress(content[:1000]) + gzip.compress(content[1000:]), digest=digest)
        self.assertEqual(reader.wal(archive, name), content)
        for stored, plain, why in ((gzip.compress(content[:-1]), 3000, "decoded to 2999"),
                                   (gzip.compress(content)[:-1], 3000, "cut off"),
                                   (gzip.compress(content[:-1]), 2999, "digest")):
            self.put(key, "wal", stored, digest=digest, plain=plain)
            self.refuses(why, lambda: reader.wal(archive, name))
        self.put(key, "wal", gzip.compress(content), f"wal/00000001/00000000/{name[:-1]}B", digest=digest)
        self.refuses("key is", lambda: reader.wal(archive, name[:-1] + "B"))


if __name__ == "__main__":
    unittest.main()
