"""Options that several commands share."""

from typing import Annotated

import typer

ModuleOption = Annotated[
    str, typer.Option("--module", "-m", metavar="MODULE:ATTR", help="The agent loop, such as server:agent_loop.")
]
