"""Files that come in pieces on a stream of requests."""

from __future__ import annotations

from collections import defaultdict

from dualprocess.v1 import generator_pb2 as pb
from services.common.errors import InvalidInput

#: All files of one call together.
MAX_BYTES = 2 * 1024**3


class Blobs:
    """Takes pieces as they come; a file counts once it is whole.

    ``field`` is where the spec names the files, for the sentences.
    """

    def __init__(self, field: str) -> None:
        self._field = field
        self._pieces: defaultdict[str, list[bytes]] = defaultdict(list)
        self._whole: set[str] = set()
        self._bytes = 0

    def take(self, piece: pb.BlobChunk) -> None:
        """Raises ``InvalidInput`` when it becomes too much."""
        self._bytes += len(piece.data)
        if self._bytes > MAX_BYTES:
            raise InvalidInput(f"{self._field}: more than {MAX_BYTES >> 30} GiB in one call")
        self._pieces[piece.name].append(piece.data)
        if piece.last:
            self._whole.add(piece.name)

    def __contains__(self, name: object) -> bool:
        return name in self._whole

    def __getitem__(self, name: str) -> bytes:
        """A whole file. Raises ``InvalidInput`` for one that did not come."""
        if name not in self._whole:
            raise InvalidInput(f"{self._field}: no blob named {name!r} came, whole, with the spec")
        return b"".join(self._pieces[name])
