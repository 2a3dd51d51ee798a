"""What the server asks of its process: log handlers and file descriptors."""

import gc
import logging
import os
import signal
import threading
from functools import cache
from typing import NoReturn

from osmosis_ai.rollout.core.settings import LogFormat
from osmosis_ai.rollout.observe.logs import use_format

LAST_WORDS_SECONDS = 1.0
_logger = logging.getLogger(__name__)


def follow_uvicorn_logging(log_format: LogFormat) -> None:
    """Show the SDK's log records where and as verbosely as uvicorn shows its own, all of them in ``log_format``.

    Does nothing where the application has set up logging itself, or where uvicorn has not.
    """
    use_format(log_format)
    ours, root, uvicorn = (logging.getLogger(name) for name in ("osmosis_ai", None, "uvicorn"))
    if ours.handlers or root.handlers or not uvicorn.handlers:
        return
    ours.handlers = list(uvicorn.handlers)
    ours.setLevel(logging.getLogger("uvicorn.error").getEffectiveLevel())
    ours.propagate = False


def raise_file_limit() -> None:
    """Allow as many open files as the system permits this process: each rollout in flight holds a connection or two."""
    try:
        import resource
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            _logger.debug("The limit of %d open files stays: %s", soft, error)


@cache
def set_aside_startup_objects() -> None:
    """Spare the garbage collector what will live as long as the process: modules, classes, schemas. Once a process."""
    gc.collect()
    # Saves 5 to 7 % of the CPU of a rollout, at 512 at once.
    gc.freeze()


def end_process(exit_code: int, why: str) -> NoReturn:
    """End now, whatever other threads do, also if nobody reads the log; may be called from any thread."""

    def last_words() -> None:
        _logger.error(why)
        logging.shutdown()

    # In a thread of its own: the lock of a handler may be held by whoever writes to a pipe that is full.
    reporter = threading.Thread(target=last_words, daemon=True)
    reporter.start()
    reporter.join(LAST_WORDS_SECONDS)
    os._exit(exit_code)


def end_with_parent() -> None:
    """Stop this server, as SIGTERM does, once its standard input closes: the trainer that started it is no more.

    A trainer that is killed with -9 can stop nobody; the system closes its end of the pipe all the same.
    """

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="osmosis-parent", daemon=True).start()
