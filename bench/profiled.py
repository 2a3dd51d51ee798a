"""``python -m bench.profiled FILE -m MODULE ...``: runs a module and, between two signals, profiles its main thread.

SIGUSR1 begins; SIGUSR2 ends it and writes FILE, for ``pstats``. Until then it costs nothing.
"""

import cProfile
import runpy
import signal
import sys
from pathlib import Path
from types import FrameType


def main() -> None:
    """Run the module that the command line names."""
    _, file, _, module, *arguments = sys.argv
    profile, path = cProfile.Profile(), Path(file)

    def begin(number: int, frame: FrameType | None) -> None:
        profile.enable()

    def end(number: int, frame: FrameType | None) -> None:
        profile.disable()
        unfinished = path.with_suffix(".part")
        profile.dump_stats(unfinished)
        unfinished.rename(path)

    signal.signal(signal.SIGUSR1, begin)
    signal.signal(signal.SIGUSR2, end)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
