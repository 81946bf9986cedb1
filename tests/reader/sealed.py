"""Sealed objects: keys, heads, ciphers, codecs, checksums (FORMAT.md, sections 1 to 4). What is wrong is refused."""
import base64
import json
import lzma
import re
import struct
import zlib
from pathlib import Path

import pyrage
import zstandard
from blake3_py import blake3

HEAD, SUM = 0x184D2A57, 0x184D2A59
DUMPS = "dumps"  # stands where else a system identifier does
DECODERS = {
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    "none": lambda: zstandard.ZstdDecompressor().decompressobj(),
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "xz": lambda: lzma.LZMADecompressor(format=lzma.FORMAT_XZ),
}


class Refused(Exception):
    """What is stored is damaged, or not what was asked for."""


class Absent(Exception):
    """There is no such object, and the archive itself is there."""


def check(fine, message):
    if not fine:
        raise Refused(message)


def crc_table():
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


CRC = crc_table()


def crc32c(data, crc=0):
    crc ^= 0xFFFFFFFF
    table = CRC
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def decode(codec, data):
    """What the codec's frames (gzip members, xz streams) hold, one by one."""
    check(codec in DECODERS, f"codec {codec}: this reader has none (lz4 needs a package that it does not use)")
    while data:
        decoder = DECODERS[codec]()
        try:
            frame = decoder.decompress(data)
        except (zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
            raise Refused(f"{codec}: {error}") from error
        check(decoder.eof, f"{codec}: the last frame is cut off")
        yield frame
        data = decoder.unused_data


def skippable(data, magic, what):
    """The body of the skippable frame at the start of `data`, and the frame's whole length."""
    check(len(data) >= 8, f"{what}: cut off")
    found, length = struct.unpack_from("<II", data)
    check(found == magic and len(data) >= 8 + length, f"{what}: no frame {magic:#x} of its length")
    return data[8:8 + length], 8 + length


def check_sum(content, key):
    """Holds a manifest that no cipher protects against the sum at its end, where it has one."""
    if content[-40:-32] == struct.pack("<II", SUM, 32):
        check(blake3(content[:-40]) == content[-32:], f"{key}: the sum at its end is wrong")


def age_head(data):
    """The binding in an age header, and the length of the head (header and payload nonce)."""
    lines, at, bindings, body = [], 0, [], None
    while not (lines and lines[-1].startswith("---")):
        end = data.find(b"\n", at)
        check(0 <= end, "age header: cut off")
        line, at = data[at:end].decode("ascii", "replace"), end + 1
        check(lines or line == "age-encryption.org/v1", "no age file")
        lines.append(line)
        if line.startswith("-> "):
            body = [] if line.split(" ")[1] == "walarchive.dev/v1" else None
        elif body is not None and not line.startswith("---"):
            body.append(line)
            if len(line) < 64:
                bindings.append("".join(body))
                body = None
    check(len(bindings) == 1, f"age header: {len(bindings)} stanzas walarchive.dev/v1 instead of one")
    return base64.b64decode(bindings[0] + "=" * (-len(bindings[0]) % 4), validate=True), at + 16


def plain_head(data):
    body, length = skippable(data, HEAD, "head of a plain object")
    check(len(body) > 32 and blake3(body[:-32]) == body[-32:], "head: the binding's digest is wrong")
    return body[:-32], length


class Archive:
    def __init__(self, root, identity, cluster, system_id):
        self.root, self.cluster, self.system_id = Path(root), cluster, system_id
        check(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}", cluster), f"{cluster!r} is no cluster name")
        check(system_id == DUMPS or re.fullmatch(r"[0-9]+", system_id), f"{system_id!r} is no system identifier")
        try:
            facts = json.loads((self.root / "archive.json").read_bytes())
        except OSError as error:  # says nothing about what is stored: not "absent"
            raise Refused(f"archive.json: {error}") from error
        check(facts.get("format") == 1, f"archive.json: format {facts.get('format')} is unknown")
        self.id, self.encrypted = facts["archive"], facts["encrypted"]
        check(re.fullmatch("[0-9a-f]{32}", self.id), "archive.json: archive is not 32 hex digits")
        self.identities = []
        if self.encrypted:
            check(identity, "the archive is encrypted: --identity is needed")
            lines = Path(identity).read_text().split("\n")
            lines = [line.strip() for line in lines if line.startswith("AGE-SECRET-KEY-1")]
            self.identities = [pyrage.x25519.Identity.from_str(line) for line in lines]

    def read(self, key, kind):
        """The object's binding, its content (opened, not decoded), and the whole object's size."""
        key = f"{self.cluster}/{self.system_id}/{key}"
        try:
            data = (self.root / key).read_bytes()
        except FileNotFoundError as error:
            raise Absent(key) from error
        binding, head = (age_head if self.encrypted else plain_head)(data)
        payload = content = data[head:]
        if self.encrypted:
            try:
                content = pyrage.decrypt(data, self.identities)
            except pyrage.DecryptError as error:
                raise Refused(f"{key}: {error}") from error
        binding = json.loads(binding)
        for name, wanted in (("v", 1), ("archive", self.id), ("key", key), ("kind", kind)):
            check(binding.get(name) == wanted, f"{key}: {name} is {binding.get(name)!r}, not {wanted!r}")
        check(binding.get("stored", len(payload)) == len(payload), f"{key}: {len(payload)} bytes are stored")
        if not self.encrypted and "sum" in binding:
            check(blake3(payload).hex() == binding["sum"], f"{key}: the sum of the payload is wrong")
        return binding, content, len(data)

    def read_decoded(self, key, kind):
        """The object's binding, and what its codec frames hold."""
        binding, content, _ = self.read(key, kind)
        if kind == "manifest" and not self.encrypted:
            check_sum(content, key)
        frames = list(decode(binding["codec"], content))
        plain = sum(map(len, frames))
        check(binding.get("plain", plain) == plain, f"{key}: decoded to {plain} bytes")
        return binding, frames

    def names(self, folder):
        """What stands below a prefix of keys; like any store, without a word about a missing one."""
        place = self.root / self.cluster / self.system_id / folder
        return sorted(entry.name for entry in place.iterdir()) if place.is_dir() else []
