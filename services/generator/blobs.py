"""Files that are sent in pieces on a stream."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from dualprocess.v1 import generator_pb2 as pb
from services.common.channels import CHUNK_BYTES
from services.common.errors import InvalidInput


def pieces(name: str, data: bytes) -> Iterator[pb.BlobChunk]:
    for begin in range(0, len(data), CHUNK_BYTES):
        end = begin + CHUNK_BYTES
        yield pb.BlobChunk(name=name, data=data[begin:end], last=end >= len(data))


class Blobs:
    """Takes pieces as they come, up to ``max_bytes`` in all; a file counts once it is complete."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._pieces: defaultdict[str, list[bytes]] = defaultdict(list)
        self._whole: set[str] = set()
        self._bytes = 0

    def take(self, piece: pb.BlobChunk) -> None:
        """Raises ``InvalidInput`` if the pieces are too large in all."""
        self._bytes += len(piece.data)
        if self._bytes > self._max_bytes:
            raise InvalidInput(f"blobs: more than {self._max_bytes >> 30} GiB in one call")
        self._pieces[piece.name].append(piece.data)
        if piece.last:
            self._whole.add(piece.name)

    def __contains__(self, name: object) -> bool:
        return name in self._whole

    def whole(self, name: str, *, field: str) -> bytes:
        """A file that ``field`` of the spec names. Raises ``InvalidInput`` if it did not come."""
        if name not in self._whole:
            raise InvalidInput(f"{field}: no complete blob named {name!r} came with the spec")
        return b"".join(self._pieces[name])
