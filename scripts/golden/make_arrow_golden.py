"""Writes small Arrow files, those that are read and those that are refused.

usage: make_arrow_golden.py OUT          (needs pyarrow)

OUT/types.arrow        stream of three batches (3, 0 and 2 rows): utf8, large_utf8, every integer type, nulls
OUT/file.arrow         the same table in the file format
OUT/legacy.arrow       the same table as a stream of metadata V4 without continuation marks
OUT/pairs.arrow        sentence1, sentence2, label, idx as the Hugging Face hub has GLUE's pairs; from a slice
OUT/float.arrow, bool.arrow, list.arrow, dictionary.arrow, lz4.arrow      refused
"""
import os
import sys

import pyarrow as pa


def write(path, batches, file=False, **options):
    new = pa.ipc.new_file if file else pa.ipc.new_stream
    with new(path, batches[0].schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        for batch in batches:
            writer.write_batch(batch)


def types_batches():
    integers = [(f"{'i' if signed else 'u'}{bits}", bits, signed) for signed in (True, False) for bits in (8, 16, 32, 64)]
    columns = {
        "text": pa.array(["plain", "", None, "tab\there", "h\u00e9 \u4e2d \U0001f600"], pa.utf8()),
        "large": pa.array([None, "a", "bc", "", "def"], pa.large_utf8()),
    }
    for name, bits, signed in integers:
        low = -(1 << (bits - 1)) if signed else 0
        high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1
        columns[name] = pa.array([low, high, 0, None, 7], getattr(pa, ("" if signed else "u") + f"int{bits}")())
    whole = pa.record_batch(columns)
    return [whole.slice(0, 3), whole.slice(3, 0), whole.slice(3, 2)]


def main(out):
    os.makedirs(out, exist_ok=True)
    at = lambda name: os.path.join(out, name + ".arrow")
    write(at("types"), types_batches())
    write(at("file"), types_batches(), file=True)
    write(at("legacy"), types_batches(), use_legacy_format=True, metadata_version=pa.ipc.MetadataVersion.V4)
    pairs = pa.record_batch({
        "sentence1": pa.array(["left out", "One first .", "Two first ."]),
        "sentence2": pa.array(["left out", "One second .", "Two second ."]),
        "label": pa.array([1, 0, 1], pa.int64()),
        "idx": pa.array([7, 8, 9], pa.int32()),
    })
    write(at("pairs"), [pairs.slice(1, 2)])
    for name, column in (("float", pa.array([0.5])), ("bool", pa.array([True])), ("list", pa.array([["a"]])),
                         ("dictionary", pa.array(["a", "a"]).dictionary_encode())):
        write(at(name), [pa.record_batch({"x": column})])
    write(at("lz4"), [pa.record_batch({"x": pa.array(["a" * 100])})], compression="lz4")


main(sys.argv[1])
