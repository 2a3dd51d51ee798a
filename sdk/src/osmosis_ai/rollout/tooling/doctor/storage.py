"""Checks of the journal and of the folder of traces."""

from pathlib import Path

from osmosis_ai.rollout.journal.sqlite import RESERVE_BYTES
from osmosis_ai.rollout.tooling.doctor.case import Case
from osmosis_ai.rollout.tooling.doctor.journal_report import NETWORK_FILE_SYSTEMS, why_not_writable
from osmosis_ai.rollout.tooling.doctor.types import Finding, not_checked, ok, problem, warning

_MEBIBYTE = 1024 * 1024


def check_journal(case: Case) -> Finding:
    """The journal can be opened and written, or made."""
    journal = case.journal
    if journal.path is None:
        return warning(
            "The journal is off: what was accepted is lost with the process.",
            "Leave out --journal off, unless rollouts may be lost.",
        )
    if journal.problem is not None:
        # The journal's own sentences end with what to do.
        message, colon, fix = journal.problem.rpartition(": ")
        if not journal.exists or not colon:
            return problem(journal.problem, "Let this user write there, or name another place with --journal.")
        return problem(f"{message}.", fix[0].upper() + fix[1:])
    return ok(f"{journal.path}{'' if journal.exists else ' can be made'}.")


def check_disk(case: Case) -> Finding:
    """There is room for more rollouts."""
    free = case.journal.free_bytes
    if case.journal.path is None:
        return ok("The journal is off.")
    if free is None:
        return not_checked("How much room there is cannot be told.")
    if free < RESERVE_BYTES:
        return problem(
            f"The disk has {free / _MEBIBYTE:.1f} MiB left; under {RESERVE_BYTES // _MEBIBYTE} inits get 503.",
            "Free some space, or name a place on another disk with --journal.",
        )
    return ok(f"{free // _MEBIBYTE} MiB left.")


def check_file_system(case: Case) -> Finding:
    """The journal is on a local disk, as locks on others may not hold."""
    kind = case.journal.file_system
    if case.journal.path is not None and kind in NETWORK_FILE_SYSTEMS:
        return warning(
            f"The journal is on a network file system ({kind}), where locks may not hold.",
            "Name a place on a local disk with --journal.",
        )
    return ok(f"{kind}." if kind else "Not a network file system.")


def check_owner(case: Case) -> Finding:
    """No other server uses the journal."""
    owners = case.journal.other_owners
    if not owners:
        return ok("No other server uses the journal.")
    known = ", ".join(f"process {owner}" for owner in owners if owner is not None)
    users = f"{len(owners)} running servers use" if len(owners) > 1 else "A running server uses"
    return warning(
        f"{users} the journal{f' ({known})' if known else ''}.",
        "That is right for workers of one server and servers of one agent; give another agent its own journal.",
    )


def check_leftovers(case: Case) -> Finding:
    """No server has ended without closing the journal, and nothing is left of a journal that is gone."""
    journal = case.journal
    if journal.orphans:
        return warning(
            f"{', '.join(journal.orphans)} is there without its journal: a server that starts removes it.",
            "If the journal was moved, move it back first: what it owes is in both files.",
        )
    if journal.dead_owners and not journal.other_owners and journal.unsettled:
        return warning(
            f"A server ended without closing the journal, and owes {journal.unsettled} results (stale lock).",
            "Start the server: it reports and delivers them; delete nothing.",
        )
    if journal.dead_owners:
        return warning(
            f"{journal.dead_owners} stale locks of servers that were killed are left beside the journal.",
            "Nothing to do: the next server that opens it removes them; see who kills it (OOM, a short stop timeout).",
        )
    return ok(f"Nothing; {journal.unsettled} results are on their way." if journal.unsettled else "Nothing.")


def check_traces(case: Case) -> Finding:
    """The folder of traces can be written."""
    folder = Path(case.traces or "")
    reason = why_not_writable(folder / "trace")
    if reason is None and folder.exists() and not folder.is_dir():
        reason = f"{folder} is no folder."
    if reason is not None:
        return problem(f"Traces cannot be written: {reason}", "Let this user write there, or name another --log DIR.")
    return ok(f"{folder}.")
