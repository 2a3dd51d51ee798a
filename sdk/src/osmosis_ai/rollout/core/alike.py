"""When two failures are one: texts that differ only in numbers, times and ids.

Whoever counts failures (trainer, test, eval, viewer) groups them by ``alike`` and shows the first text of a group.
"""

import re
from functools import lru_cache

MAX_CHARACTERS = 300

# A status of HTTP tells failures apart, whatever else is a number.
_KEPT = re.compile(r"(?i)\b((?:http|status(?: code)?|answered|code)[ :=]{1,2})(\d{3})\b")
_VARYING = re.compile(r"(?a)[\w.:+-]*\d[\w.:+-]*")
_LONG_HEX = re.compile(r"\b[a-f]{8,}\b")


@lru_cache(maxsize=1000)  # the same failure comes many times
def alike(text: str) -> str:
    """The first line of ``text``, cut, with ``#`` for each word that has a digit in it, but for a status of HTTP."""
    line = text.strip().partition("\n")[0][:MAX_CHARACTERS]
    kept: list[str] = []

    def keep(found: re.Match[str]) -> str:
        kept.append(found[2])
        return f"{found[1]}\0"

    line = _VARYING.sub("#", _LONG_HEX.sub("#", _KEPT.sub(keep, line.replace("\0", " "))))
    return re.sub("\0", lambda _: kept.pop(0), line)
