"""The wall clock of the servers, which the bench can set, by libfaketime where that is installed. Steady ones go on."""

from pathlib import Path

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
"""Debian's package ``faketime`` has it."""


class Clock:
    """One for all servers, kept in ``file``; right until it is set."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set_to("+0")

    @property
    def environment(self) -> dict[str, str]:
        """Of a process that goes by it."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_to(self, offset: str) -> None:
        """Set it that far from the right time, such as ``+2h``; running servers see it within a second or so."""
        # Renamed into place, as a server may read it at any moment.
        new = self._file.with_suffix(".new")
        new.write_text(offset, encoding="ascii")
        new.replace(self._file)
