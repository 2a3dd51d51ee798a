"""``--debug``: what this package says, and not what others do, on standard error."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

PACKAGE_LOGGER = "osmosis_ai"


@contextmanager
def package_debug_log(wanted: bool) -> Iterator[None]:
    """Log it, if ``wanted``."""
    if not wanted:
        yield
        return
    logger = logging.getLogger(PACKAGE_LOGGER)
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
