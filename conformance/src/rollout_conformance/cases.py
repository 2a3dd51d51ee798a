"""Several cases of one promise, played side by side; where only some break it, the failure says which."""

import asyncio
from collections.abc import Awaitable, Mapping

from rollout_conformance.vocabulary import Failed

MAX_NAMED = 6
SOME = "it depends on the case"


async def every(cases: Mapping[str, Awaitable[object]]) -> None:
    """Await all, by what each is about.

    Raises:
        Failed: the first of those that failed; where others did not, and it does not say so itself, what usually lies
            behind it is that they differ.
    """
    ended = dict(zip(cases, await asyncio.gather(*cases.values(), return_exceptions=True), strict=True))
    broken = {name: end for name, end in ended.items() if isinstance(end, BaseException)}
    for end in broken.values():
        if isinstance(end, Failed) and end.usually is None and len(broken) < len(cases):
            end.usually = depends_on(list(broken), [name for name in ended if name not in broken])
        raise end


def depends_on(broken: list[str], others: list[str]) -> str:
    """What usually lies behind it: that the two differ."""
    return f"{SOME}: it fails for {_list(broken)}; it holds for {_list(others)}"


def _list(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
    return ", ".join(names[:MAX_NAMED]) + more
