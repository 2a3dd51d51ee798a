"""A reward and what it is made of: one number that trains, and named numbers beside it (``reward_components``).

What an agent gives is checked, and refused in a sentence; what comes over the wire or from a file is read as far as it
can be used.
"""

import math
from collections.abc import Mapping
from typing import Any

from osmosis_ai.rollout.core.exceptions import RewardError
from osmosis_ai.rollout.core.text import escaped, fitted

REWARD_COMPONENTS = "reward_components"
REWARD = "reward"
MAX_COMPONENTS = 32
MAX_NAME_CHARACTERS = 64
ROUNDING = 1e-9


def reaches(reward: float, least: float) -> bool:
    """Whether ``reward`` is ``least`` or more, but for rounding: ``0.7 + 0.2 + 0.1`` is less than 1."""
    return reward >= least - ROUNDING


def split_reward(given: Any) -> tuple[Any, dict[str, float]]:
    """Reward and parts of what a reward function gave: ``{"reward": 0.75, "format": 1.0}``, or a reward alone.

    Raises:
        RewardError: a dict without ``reward``, or with a part that is no finite number.
    """
    if not isinstance(given, Mapping):
        return given, {}
    if REWARD not in given:
        names = fitted(", ".join(map(repr, given)), 200) or "nothing"
        raise RewardError(f"A reward given as a dict needs the key 'reward' beside its parts, got {escaped(names)}.")
    return given[REWARD], checked_components({name: value for name, value in given.items() if name != REWARD})


def checked_components(given: Any) -> dict[str, float]:
    """The parts as plain numbers; one that is ``None`` is left out.

    Raises:
        RewardError: they are no dict of finite numbers by name, or too many.
    """
    if not isinstance(given, Mapping):
        raise RewardError(f"reward_components must be a dict of numbers by name, got {type(given).__name__}.")
    if len(given) > MAX_COMPONENTS:
        raise RewardError(f"A reward has at most {MAX_COMPONENTS} parts, got {len(given)}.")
    components: dict[str, float] = {}
    for name, value in given.items():
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARACTERS:
            shown = escaped(fitted(repr(name), 80))
            raise RewardError(f"The part {shown} of a reward needs a name of 1 to {MAX_NAME_CHARACTERS} characters.")
        if value is None:
            continue
        number = _finite(value)
        if number is None:
            shown = f"{value!r:.80}" if isinstance(value, str | float) else type(value).__name__
            raise RewardError(f"The part {escaped(repr(name))} of a reward must be a finite number, got {shown}.")
        components[name] = number
    return components


def known_components(extra_fields: Any) -> dict[str, float]:
    """The parts in the ``extra_fields`` of a result from elsewhere; what is no part is passed over."""
    given = extra_fields.get(REWARD_COMPONENTS) if isinstance(extra_fields, Mapping) else None
    return readable_components(given)


def readable_components(given: Any) -> dict[str, float]:
    """As many parts as there may be, of a dict from elsewhere; what is no part is passed over."""
    components: dict[str, float] = {}
    for name, value in given.items() if isinstance(given, Mapping) else ():
        if len(components) == MAX_COMPONENTS:
            break
        fits = isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARACTERS
        number = _finite(value) if fits and isinstance(value, int | float) else None
        if number is not None:
            components[name] = number
    return components


def _finite(value: Any) -> float | None:
    if isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except Exception:  # noqa: BLE001 - a foreign number type may raise anything
        return None
    return number if math.isfinite(number) else None
