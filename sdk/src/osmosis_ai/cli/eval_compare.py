"""``osmosis eval compare``: two saved evaluations, row by row."""

from pathlib import Path
from typing import Annotated

import typer

from osmosis_ai.cli import options as table


def eval_compare(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="What osmosis eval wrote with -o.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="The same of another model, agent or setting.")],
    seed: table.Seed = 0,
    as_json: table.AsJson = False,
) -> int:
    """Compare two saved evaluations of one dataset: A minus B, paired by row."""
    import json

    from osmosis_ai.rollout.core.console import Console
    from osmosis_ai.rollout.core.json_document import write_document
    from osmosis_ai.rollout.run.evaluate import comparing
    from osmosis_ai.rollout.run.evaluate.terminal import comparison_sentence
    from osmosis_ai.rollout.run.loading import speaker

    evaluations = comparing.read_evaluation(first), comparing.read_evaluation(second)
    found = comparing.compare_saved(*evaluations, seed)
    if as_json:
        write_document([json.dumps(comparing.as_json(*evaluations, found), indent=2), "\n"])
        return 0
    say = speaker(Console(), is_silent=False)
    for letter, each in zip("AB", evaluations, strict=True):
        say(f"{letter}: {each.path} ({each.model})")
    for name, paired in found.items():
        say(comparison_sentence(name, paired, "A minus B"))
    return 0
