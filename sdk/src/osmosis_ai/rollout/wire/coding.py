"""Content codings of replies (RFC 9110, section 8.4.1): none is asked for, but some apply them all the same.

A body is taken only whole: every member with its end and its checksum, and nothing behind. It is decompressed in steps,
as some kilobytes may stand for gigabytes: the first step on the event loop, all others in a thread, one body at a time,
and only once it is known that it is not too large, so that a bomb costs no memory.
"""

import threading
import zlib

import httpx

from osmosis_ai.rollout.core.offload import call_in_thread

CODINGS = frozenset({b"gzip", b"x-gzip", b"deflate"})
STEP_BYTES = 262_144
MAX_MEMBERS = 1000
"""Of one gzip body; each costs a copy of what comes after it."""
_GZIP_MAGIC = b"\x1f\x8b"
_AUTOMATIC, _RAW = zlib.MAX_WBITS | 32, -zlib.MAX_WBITS
_one_at_a_time = threading.Lock()


def is_coded(coding: bytes) -> bool:
    """Whether a ``Content-Encoding`` is one that ``decoded`` takes off; others are left as they are."""
    return coding.strip().lower() in CODINGS


async def decoded(body: bytes, max_bytes: int) -> bytes:
    """``body`` without its coding.

    Raises:
        httpx.DecodingError: it is cut off, damaged, or stands for more than ``max_bytes`` bytes.
    """
    if not body:
        return body
    decoding = _Decoding(body, max_bytes)
    try:
        if not decoding.step():
            await call_in_thread(decoding.finish)
    except zlib.error as error:
        decoding.pieces.clear()  # the error's traceback holds this frame for as long as somebody keeps the error
        raise httpx.DecodingError(f"The reply cannot be decompressed: {error}") from error
    return b"".join(decoding.pieces)


class _Decoding:
    def __init__(self, body: bytes, max_bytes: int) -> None:
        self.pieces: list[bytes] = []
        self._whole = body
        self._body = memoryview(body)
        self._fed = 0
        self._input = b""
        self._room = self._max_bytes = max_bytes
        self._is_gzip = body.startswith(_GZIP_MAGIC)
        # By the first bytes and not by the header: "deflate" is zlib's format, but servers send raw deflate by that
        # name, and gzip too. zlib's two bytes are a multiple of 31, with 8 for the method (RFC 1950, section 2.2).
        is_zlib = body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        self._format = _AUTOMATIC if self._is_gzip or is_zlib else _RAW
        self._member = zlib.decompressobj(self._format)
        self._members_left = MAX_MEMBERS

    def step(self) -> bool:
        """Decompress some more; whether that was all."""
        # In slices: what zlib has not consumed it gives back as a copy, at every step.
        if not self._input and self._fed < len(self._body):
            self._input = bytes(self._body[self._fed : self._fed + STEP_BYTES])
            self._fed += len(self._input)
        at_most = min(STEP_BYTES, self._room + 1)  # the one byte more shows that the body is too large
        piece = self._member.decompress(self._input, at_most)
        self._room -= len(piece)
        if self._room < 0:
            raise zlib.error(f"it is larger than {self._max_bytes} bytes")
        if piece:
            self.pieces.append(piece)
        if self._member.eof:
            self._input = self._member.unused_data
            return self._is_over()
        self._input = self._member.unconsumed_tail
        if not self._input and self._fed == len(self._body) and len(piece) < at_most:
            raise zlib.error("it is cut off")
        return False

    def finish(self) -> None:
        with _one_at_a_time:
            counting = _Decoding(self._whole, self._max_bytes)
            while not counting.step():
                counting.pieces.clear()
            while not self.step():
                pass

    def _is_over(self) -> bool:
        if not self._input and self._fed == len(self._body):
            return True
        self._members_left -= 1
        if not (self._is_gzip and self._members_left):
            raise zlib.error("there is something behind its end")
        self._member = zlib.decompressobj(self._format)  # gzip has any number of members (RFC 1952, section 2.2)
        return False
