"""A new agent project, made of this project's example: the library behind ``osmosis init``.

``project/`` is laid out as what is written, without the example's own files: a wheel has them in there, in a checkout
they lie at the top. ``source`` finds out where the new project gets this SDK from, ``create`` writes it.
"""

import sys
from typing import TYPE_CHECKING

from osmosis_ai.rollout.core.lazy import lazy_exports

if TYPE_CHECKING:
    from osmosis_ai.rollout.tooling.scaffold.create import Project as Project, create_project as create_project
    from osmosis_ai.rollout.tooling.scaffold.errors import ScaffoldError as ScaffoldError
    from osmosis_ai.rollout.tooling.scaffold.source import (
        SdkSource as SdkSource,
        named_source as named_source,
        own_source as own_source,
    )

_EXPORTS = {
    "osmosis_ai.rollout.tooling.scaffold.create": "Project create_project",
    "osmosis_ai.rollout.tooling.scaffold.errors": "ScaffoldError",
    "osmosis_ai.rollout.tooling.scaffold.source": "SdkSource named_source own_source",
}

__all__, __getattr__, __dir__ = lazy_exports(sys.modules[__name__], _EXPORTS)
