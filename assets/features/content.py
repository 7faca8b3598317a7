"""The id of a training set: a hash of its rows."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["content_hash"]


def content_hash(parts: dict[str, pa.Table], columns: Sequence[str], features: Sequence[str]) -> str:
    """A hash (16 hex digits) of the rows' values in order, whatever file, chunk or machine they came from.

    Each column of each part is hashed as the lengths of its values, little-endian, -1 for a missing one, followed by
    the values: texts in UTF-8, instants in microseconds, numbers as IEEE doubles with negative zeros made positive.
    """
    digest = hashlib.sha256(json.dumps([list(columns), list(features)]).encode())
    for name, part in parts.items():
        digest.update(f"{name}:{part.num_rows};".encode())
        for column in part.column_names:
            for encoded in _encode(part[column]):
                digest.update(encoded)
    return digest.hexdigest()[:16]


def _encode(column: pa.ChunkedArray) -> tuple[bytes, bytes]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        lengths = pc.fill_null(pc.binary_length(column), -1)
        return _bytes(lengths, "<i8"), b"".join(_text(chunk) for chunk in column.chunks)
    lengths = pc.if_else(pc.is_null(column, nan_is_null=True), -1, 8)
    if pa.types.is_timestamp(column.type):
        return _bytes(lengths, "<i8"), _bytes(pc.fill_null(column.cast(pa.int64()), 0), "<i8")
    numbers = pc.if_else(pc.is_null(column, nan_is_null=True), 0.0, column)
    return _bytes(lengths, "<i8"), _bytes(pc.add(numbers, 0.0), "<f8")


def _bytes(numbers: pa.ChunkedArray, kind: str) -> bytes:
    return np.asarray(numbers).astype(kind).tobytes()


def _text(chunk: pa.Array) -> bytes:
    filled = chunk.fill_null("").cast(pa.large_binary())
    _, offsets, data = filled.buffers()
    places = np.frombuffer(offsets, "<i8")[filled.offset : filled.offset + len(filled) + 1]
    return bytes(data[places[0] : places[-1]]) if data is not None else b""
