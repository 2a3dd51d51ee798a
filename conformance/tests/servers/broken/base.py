"""``SmallServer`` with one defect each; ``finds`` are the checks that must fail because of it, and no others."""

from typing import ClassVar

from servers.small import SmallServer


class BrokenServer(SmallServer):
    """Each subclass is registered."""

    finds: ClassVar[set[str]] = set()
    needs: ClassVar[str] = ""
    """``key``: it is started with a key. ``process``: as a process."""
    is_silent: ClassVar[bool] = False
    """Whether the defect shows as something that never comes."""
    is_total: ClassVar[bool] = False
    """Whether nothing works because of it, so that other checks fail too."""
    every: ClassVar[list[type["BrokenServer"]]] = []

    def __init_subclass__(cls) -> None:
        cls.every.append(cls)
