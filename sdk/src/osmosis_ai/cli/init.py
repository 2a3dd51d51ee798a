"""``osmosis init``: a new agent project, from the example that this SDK comes with."""

from pathlib import Path
from typing import Annotated

import typer

from osmosis_ai.cli import options as table


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or an empty one.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the project and its agent [default: from DIR]")] = None,
    sdk: Annotated[
        str | None,
        typer.Option(
            "--sdk",
            metavar="PATH|FILE.whl|git+URL",
            help="Where the project gets this SDK from; a wheel is copied into it [default: where this one is from]",
        ),
    ] = None,
    as_json: table.AsJson = False,
) -> int:
    """Write a new agent project that passes its own tests."""
    import json

    from osmosis_ai.rollout.core.console import console
    from osmosis_ai.rollout.core.text import counted
    from osmosis_ai.rollout.tooling.scaffold.create import create_project
    from osmosis_ai.rollout.tooling.scaffold.source import named_source, own_source

    source = own_source() if sdk is None else named_source(sdk)
    project = create_project(folder, source, name)
    if as_json:
        from osmosis_ai.rollout.core.json_document import write_document

        told = {
            "folder": str(folder),
            "name": project.name,
            "sdk": str(source),
            "files": sorted(project.files),
        }
        write_document([json.dumps(told, indent=2), "\n"])
        return 0
    files = counted(len(project.files), "file")
    lines = [
        f"{folder} holds the agent {project.name!r}, in {files}. It gets the SDK from {source}.",
        "",
        "Next:",
        f"  cd {folder}",
        "  uv run pytest",
        "  uv run osmosis trainer -m server:agent_loop -d test_data.jsonl --policy policy:reply",
        "",
        "Then make it yours: tools.py, rewards.py, policy.py, test_data.jsonl.",
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0
