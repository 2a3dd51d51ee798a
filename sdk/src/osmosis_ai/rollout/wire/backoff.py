"""When to try again: what the other side asked for, or else an exponential delay, spread so that nobody is in step."""

import random
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from osmosis_ai.rollout.core.settings import RolloutClientSettings

MAX_DOUBLINGS = 20
_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def retry_after_seconds(value: str) -> float | None:
    """A ``Retry-After`` header in seconds from now, if it is one: a number or a date (RFC 9110, 10.2.3).

    Dates without a zone count as UTC; a moment that has passed is 0.
    """
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, OverflowError):
        return None


def delay_seconds(
    settings: "RolloutClientSettings", failed_attempts: int, error: Exception | None, left_seconds: float = 0.0
) -> float:
    """How long to wait after the ``failed_attempts``-th failure, 1 for the first.

    That is the error's ``retry_after_seconds`` where it has one, if that is below ``left_seconds``; else half to all of
    the doubled base delay. Anything else is at most ``retry_max_delay``.
    """
    asked: float | None = getattr(error, "retry_after_seconds", None)
    if asked is not None:
        # One that goes beyond the call's time is bounded: a trainer that asks for a day may be back in a minute.
        return asked if asked < left_seconds else min(asked, settings.retry_max_delay)
    doublings = min(failed_attempts - 1, MAX_DOUBLINGS)
    delay: float = min(settings.retry_base_delay * 2**doublings, settings.retry_max_delay)
    return delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, guards nothing
