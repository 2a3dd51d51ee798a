"""httpx without its command line, which imports click, rich and pygments: more than all the rest of httpx.

``import httpx`` takes the function ``main`` from ``httpx._main`` if that can be imported. Where httpx is not imported
yet, a stand-in is put there, whose ``main`` loads the real one when somebody calls it.
"""

import importlib
import sys
from types import ModuleType

_COMMAND_LINE = "httpx._main"


def leave_out_command_line() -> None:
    """Prepare for an ``import httpx`` to come; does nothing where it has happened."""
    if "httpx" in sys.modules or _COMMAND_LINE in sys.modules:
        return
    stand_in = ModuleType(_COMMAND_LINE, __doc__)
    stand_in.main = _real_main  # type: ignore[attr-defined]  # a module made by hand has no declared attributes
    sys.modules[_COMMAND_LINE] = stand_in


def _real_main() -> None:
    sys.modules.pop(_COMMAND_LINE, None)
    importlib.import_module(_COMMAND_LINE).main()
