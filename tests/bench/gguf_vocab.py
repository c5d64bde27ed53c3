"""Writes a copy of a GGUF file with random weights that also has a vocabulary, without which llama-server does not serve. The
right size, and no meaning: bytes, one merge, and names.

    gguf_vocab.py FROM TO SIZE"""
import struct
import sys

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
U32, I32, BOOL, STRING, ARRAY = 4, 5, 7, 8, 9
CHUNK = 16 << 20


def text(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def key(name, kind, value):
    return text(name) + struct.pack("<I", kind) + value


def strings(values):
    return struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values))


def skip_value(f, kind):
    if kind == STRING:
        f.seek(struct.unpack("<Q", f.read(8))[0], 1)
    elif kind == ARRAY:
        inner, n = struct.unpack("<IQ", f.read(12))
        for _ in range(n if inner in (STRING, ARRAY) else 0):
            skip_value(f, inner)
        if inner in SIZES:
            f.seek(n * SIZES[inner], 1)
    else:
        f.seek(SIZES[kind], 1)


def read_text(f):
    return f.read(struct.unpack("<Q", f.read(8))[0])


def byte_letters():
    """The letters that byte-level vocabularies write bytes as."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(other)) for b in range(256)]


def vocabulary(size):
    tokens = byte_letters()
    tokens.append(tokens[32] + "t")
    tokens += [f"token{i}" for i in range(len(tokens), size - 1)] + ["<|end|>"]
    kinds = [1] * (size - 1) + [3]
    return [
        key("tokenizer.ggml.model", STRING, text("gpt2")),
        key("tokenizer.ggml.pre", STRING, text("qwen2")),
        key("tokenizer.ggml.tokens", ARRAY, strings(tokens)),
        key("tokenizer.ggml.token_type", ARRAY, struct.pack("<IQ", I32, size) + struct.pack(f"<{size}i", *kinds)),
        key("tokenizer.ggml.merges", ARRAY, strings([tokens[32] + " t"])),
        key("tokenizer.ggml.eos_token_id", U32, struct.pack("<I", size - 1)),
        key("tokenizer.ggml.add_bos_token", BOOL, b"\0"),
    ]


def main(source, target, size):
    with open(source, "rb") as f, open(target, "wb") as out:
        magic, version, n_tensors, n_keys = struct.unpack("<4sIQQ", f.read(24))
        if magic != b"GGUF" or version != 3:
            sys.exit(f"{source}: no GGUF file of version 3")
        added = vocabulary(size)
        for _ in range(n_keys):
            begin = f.tell()
            name = read_text(f)
            skip_value(f, struct.unpack("<I", f.read(4))[0])
            end = f.tell()
            f.seek(begin)
            value = f.read(end - begin)
            if not name.startswith(b"tokenizer."):
                added.append(value)
        infos = f.tell()
        for _ in range(n_tensors):
            read_text(f)
            f.seek(8 * struct.unpack("<I", f.read(4))[0] + 12, 1)
        head_end = f.tell()
        out.write(struct.pack("<4sIQQ", magic, version, n_tensors, len(added)))
        f.seek(infos)
        out.write(b"".join(added) + f.read(head_end - infos))
        out.write(b"\0" * (-out.tell() % 32))
        f.seek(-head_end % 32, 1)
        while chunk := f.read(CHUNK):
            out.write(chunk)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
