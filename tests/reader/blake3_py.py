"""BLAKE3 (hash, keyed hash, derive key; 32 bytes of output) with the standard library alone.

One Python integer holds a word of many chunks, each in a lane of 64 bits, so that one operation of Python's
works on all of them; that makes it some fifty times as fast as one chunk at a time.
"""
import struct
import sys
from array import array

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
STEPS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT, KEYED, CONTEXT, MATERIAL = (1 << bit for bit in range(7))
LANES = 1024


def lanes(words):
    """32-bit words, one for each lane, as one integer."""
    return int.from_bytes(struct.pack(f"<{len(words)}Q", *words), "little")


def compress(chaining, block, counters, length, flags):
    ones = lanes([1] * len(counters))
    mask = ones * 0xFFFFFFFF
    low, high = (lanes([at >> shift & 0xFFFFFFFF for at in counters]) for shift in (0, 32))
    v = [*chaining, *(ones * word for word in IV[:4]), low, high, ones * length, ones * flags]
    for _ in range(7):
        for at, (a, b, c, d) in enumerate(STEPS):
            for word, by_d, by_b in ((block[2 * at], 16, 12), (block[2 * at + 1], 8, 7)):
                v[a] = v[a] + v[b] + word & mask
                x = v[d] ^ v[a]
                v[d] = (x >> by_d | x << 32 - by_d) & mask
                v[c] = v[c] + v[d] & mask
                x = v[b] ^ v[c]
                v[b] = (x >> by_b | x << 32 - by_b) & mask
        block = [block[word] for word in PERMUTATION]
    return [v[at] ^ v[at + 8] for at in range(8)]


def chunks(data, key, counter, flags, last):
    """The chaining values of chunks of one length (1024 bytes, or whatever the last one has)."""
    count = max(1, len(data) // 1024)
    blocks = max(1, -(-min(len(data), 1024) // 64))
    words = array("I", data.ljust(64 * blocks, b"\0") if count == 1 else data)
    if sys.byteorder == "big":
        words.byteswap()
    chaining = [lanes([word] * count) for word in key]
    for at in range(blocks):
        block = [lanes(words[at * 16 + word::16 * blocks]) for word in range(16)]
        length = 64 if count > 1 else min(64, len(data) - 64 * at)
        end = CHUNK_END | last if at == blocks - 1 else 0
        start = CHUNK_START if at == 0 else 0
        chaining = compress(chaining, block, range(counter, counter + count), length, flags | start | end)
    return split(chaining, count)


def split(chaining, count):
    rows = (struct.unpack(f"<{count}Q", word.to_bytes(8 * count, "little")) for word in chaining)
    return list(zip(*rows))


def tree(data, key, flags):
    whole = (len(data) - 1) // 1024 if data else 0
    level = []
    for at in range(0, whole, LANES):
        end = min(whole, at + LANES)
        level += chunks(data[at * 1024:end * 1024], key, at, flags, 0)
    level += chunks(data[whole * 1024:], key, whole, flags, 0 if whole else ROOT)
    while len(level) > 1:
        pairs = [left + right for left, right in zip(level[::2], level[1::2])]
        last = ROOT if len(level) == 2 else 0
        block = [lanes(column) for column in zip(*pairs)]
        keys = [lanes([word] * len(pairs)) for word in key]
        odd = level[len(pairs) * 2:]
        level = split(compress(keys, block, [0] * len(pairs), 64, flags | PARENT | last), len(pairs)) + odd
    return struct.pack("<8I", *level[0])


def blake3(data, key=None):
    return tree(data, struct.unpack("<8I", key), KEYED) if key else tree(data, IV, 0)


def derive_key(context, material):
    return tree(material, struct.unpack("<8I", tree(context, IV, CONTEXT)), MATERIAL)
