"""Unpacks gzip, zstd and the members of a zip, a block at a time. Nothing is written to disk."""

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa

from assets.exceptions import SourceError

__all__ = ["DamagedError", "bounded", "file_blocks", "member_blocks", "open_zip", "unpacker"]

_BLOCK = 1 << 16
_CONTENT = 1 << 20
_MAX_DIRECTORY = 1 << 20
"""Bytes of a zip's directory: some ten thousand members."""
_ENCRYPTED = 0x1
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""The ones that need no more memory than a block."""


class DamagedError(SourceError):
    """An object cannot be read from here on; the message is the reason."""


def bounded(blocks: Iterator[bytes], limit: int) -> Iterator[bytes]:
    """The same blocks. Raises DamagedError, 'expands-too-far', once their total exceeds a number of bytes."""
    size = 0
    for block in blocks:
        size += len(block)
        if size > limit:
            raise DamagedError("expands-too-far")
        yield block


def file_blocks(path: Path, size: int = _BLOCK) -> Iterator[bytes]:
    """The bytes of a file."""
    with path.open("rb") as file:
        while block := file.read(size):
            yield block


def unpacker(name: str) -> Callable[[Path], Iterator[bytes]] | None:
    """The function that unpacks a file with this name; None when it is not compressed."""
    name = name.lower()
    return _gzip_blocks if name.endswith(".gz") else _zstd_blocks if name.endswith(".zst") else None


def _zstd_blocks(path: Path) -> Iterator[bytes]:
    """The content of a zstd file of one or more frames. Raises DamagedError where it is truncated or corrupt."""
    try:
        with pa.CompressedInputStream(pa.OSFile(str(path)), "zstd") as stream:
            while block := stream.read(_BLOCK):
                yield block
    except OSError as error:
        raise DamagedError("truncated-zstd" if "Truncated" in str(error) else "corrupt-zstd") from None


def _gzip_blocks(path: Path) -> Iterator[bytes]:
    """The content of a gzip file of one or more members. Raises DamagedError where it is truncated or corrupt."""
    inflater = _Inflater()
    for block in file_blocks(path):
        yield from inflater.inflate(block)
    if inflater.in_member:
        raise DamagedError("truncated-gzip")


def open_zip(path: Path) -> zipfile.ZipFile:
    """An archive. Raises DamagedError, 'corrupt-zip' or 'too-many-members'."""
    try:
        return zipfile.ZipFile(_ShortReads(path))
    except DamagedError:
        raise
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError):
        raise DamagedError("corrupt-zip") from None


def member_blocks(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """The content of a member. Raises DamagedError where it is corrupt or its compression is not supported."""
    if info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS:
        raise DamagedError("unreadable-member")
    try:
        with archive.open(info) as file:
            while block := file.read(_BLOCK):
                yield block
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError):
        raise DamagedError("corrupt-member") from None


class _ShortReads(io.FileIO):
    """A file that limits each read: `zipfile` reads the whole directory of an archive at once."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise DamagedError("too-many-members")
        return super().read(size) or b""


class _Inflater:
    """Decompresses the members of a gzip stream, at most one block of content at a time."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(wbits=31)
        self.in_member = False

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """The content of this data. Raises DamagedError, after the last byte that could be recovered."""
        while data:
            if not self.in_member:
                data = data.lstrip(b"\0")
                self.in_member = bool(data)
            before = self._member.copy()
            try:
                content = self._member.decompress(data, _CONTENT)
            except zlib.error:
                yield _salvage(before, data)
                raise DamagedError("corrupt-gzip") from None
            yield content
            data = self._member.unconsumed_tail
            if self._member.eof:
                data, self._member, self.in_member = self._member.unused_data, zlib.decompressobj(wbits=31), False


def _salvage(member: "zlib._Decompress", data: bytes) -> bytes:
    """The content before the fault in the last step, which zlib drops when it fails."""
    content = bytearray()
    try:
        for byte in range(len(data)):
            content += member.decompress(data[byte : byte + 1])
    except zlib.error:
        return bytes(content)
    raise AssertionError("the fault went away")
