"""For each check a mutant that it is the first to find: all checks before it pass, or fail for want of what it checks.

``python -m servers.proofs`` (from ``conformance/tests``) looks for one for each check that ``proofs.json`` has no proof
of today for: it runs the checks before it and itself against the mutants that name it, until none of those before finds
one. A proof is of today as long as the check, its mutant, and what both use in their modules read as they did. What all
share, such as the kit's own trainer, makes none older: the tests that run each mutant against its checks see to that.
"""

import argparse
import ast
import asyncio
import hashlib
import inspect
import json
import logging
from functools import cache
from pathlib import Path

from rollout_conformance import Check, ConformanceError, Report, Status, select
from servers.judging import KEY, judged, judged_process
from servers.mutants import MUTANTS, Mutant

PROOFS = Path(__file__).parent / "proofs.json"
TIMEOUT_SECONDS = {False: 60.0, True: 15.0}
"""By whether the defect is silent."""
DRAIN_SECONDS = 6.0
ENDS = ("drain", "limits")
HEAVY = frozenset({"wire.bomb", "wire.endless_head", "wire.endless_body", "invalid.body_size"})
"""They cost more than all others, and are left out where another check is proven; so are those of ``load``."""


def candidates(check: Check) -> list[Mutant]:
    """Those that name it, the most promising first: it alone finds them, soon, in this process."""
    named = [mutant for mutant in MUTANTS.values() if check.id in mutant.finds]
    return sorted(named, key=lambda one: (len(one.finds), one.is_total, one.needs == "process", one.is_silent))


def digest(check: Check, mutant: Mutant) -> str:
    """Of what the two say."""
    said = _said(inspect.getsourcefile(check.run) or "", check.run.__name__), _said(mutant.file, mutant.name)
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:16]


def _said(file: str, name: str) -> str:
    """The statement that defines a function, or registers a mutant, and all of its module that it uses."""
    statements, defined = _module(file)
    chosen, left = set[int](), [defined[name]]
    while left:
        if (number := left.pop()) not in chosen:
            chosen.add(number)
            left += [defined[used] for used in statements[number][1] if used in defined]
    return "\n".join(statements[number][0] for number in sorted(chosen))


@cache
def _module(file: str) -> tuple[list[tuple[str, set[str]]], dict[str, int]]:
    """Of each of its statements the text and the names that it uses; by name, which statement defines it."""
    text = Path(file).read_text(encoding="utf-8")
    statements, defined, lines = list[tuple[str, set[str]]](), dict[str, int](), text.splitlines()
    for number, node in enumerate(ast.parse(text).body):
        begin = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        used = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
        statements.append(("\n".join(lines[begin - 1 : node.end_lineno]), used))
        defined |= dict.fromkeys([*_names(node), *_registers(node)], number)
    return statements, defined


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]


def _registers(node: ast.stmt) -> list[str]:
    calls = [one for one in ast.walk(node) if isinstance(one, ast.Call) and ast.unparse(one.func) == "mutant"]
    return [str(one.args[0].value) for one in calls if isinstance(one.args[0], ast.Constant)]


def proofs() -> dict[str, dict[str, str]]:
    """By check: the name of its ``mutant``, the ``digest`` of both when it was proven, and ``among`` which checks.

    ``all``: no check before it in the catalogue finds the mutant. ``group``: none before it in its own group does.
    """
    found: dict[str, dict[str, str]] = json.loads(PROOFS.read_text(encoding="utf-8")) if PROOFS.exists() else {}
    return found


def stale() -> list[Check]:
    """Checks that have no proof of today."""
    known = proofs()
    return [
        check
        for check in select()
        if (proof := known.get(check.id)) is None
        or check.id not in getattr(MUTANTS.get(proof["mutant"]), "finds", ())
        or proof["digest"] != digest(check, MUTANTS[proof["mutant"]])
    ]


async def _judged(mutant: Mutant, checks: list[Check]) -> Report:
    limit = TIMEOUT_SECONDS[mutant.is_silent]
    if mutant.needs != "process":
        return await judged(mutant.server(api_key=KEY), checks, timeout_seconds=limit)
    drain_seconds = DRAIN_SECONDS if any(one.id == "drain.interrupted" for one in checks) else None
    return await judged_process(mutant.name, checks, timeout_seconds=limit, drain_seconds=drain_seconds)


async def before(check: Check, mutant: Mutant, *, in_group: bool) -> str:
    """Which check (of its group) finds the mutant before this one does; an empty text if this one is the first."""
    order = list(select())
    earlier = [
        one
        for one in order[: order.index(check)]
        if not (one.id in HEAVY or one.group == "load" or (one.group in ENDS and mutant.needs != "process"))
        and (one.group == check.group or not in_group)
    ]
    try:
        report = await _judged(mutant, [*earlier, check, *(one for one in order if one.id in mutant.beside)])
    except ConformanceError as error:
        return str(error)
    failed = {one.check.id: one.cause for one in report.results if one.status in (Status.FAILED, Status.BROKEN)}
    others = [one.id for one in earlier if one.id in failed and failed[one.id] != check.id]
    return ", ".join(others) if others or check.id in failed else "none, and it does not find it either"


async def prove(checks: list[Check], at_once: int, *, in_group: bool) -> None:
    """Look for a proof of each, and write down what there is."""
    slots = asyncio.Semaphore(at_once)

    async def one(check: Check) -> None:
        async with slots:
            for mutant in candidates(check):
                if not (problem := await before(check, mutant, in_group=in_group)):
                    _write(check, mutant, "group" if in_group else "all")
                    return
                print(f"{check.id}: {mutant.name} is found before by {problem}", flush=True)  # noqa: T201 - the answer
            print(f"{check.id} has no proof", flush=True)  # noqa: T201 - its answer

    await asyncio.gather(*map(one, checks))


def _write(check: Check, mutant: Mutant, among: str) -> None:
    known = {**proofs(), check.id: {"mutant": mutant.name, "among": among, "digest": digest(check, mutant)}}
    ordered = {one.id: known[one.id] for one in select() if one.id in known}
    PROOFS.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--at-once", type=int, default=2, help="mutants that are tried side by side")
    parser.add_argument(
        "--group", action="store_true", help="look at the checks of its group alone: a tenth of the time"
    )
    options = parser.parse_args()
    logging.disable()  # mutants break on purpose
    asyncio.run(prove(stale(), options.at_once, in_group=options.group))
