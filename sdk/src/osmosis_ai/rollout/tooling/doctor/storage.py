"""The journal and the folder of traces, looked at without making anything that is not there.

A journal that exists is opened as the next server would open it. For one that does not, an unnamed temporary file shows
whether its folder can be written.
"""

import asyncio
import os
import shutil
import sqlite3
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from osmosis_ai.rollout.core.settings import JOURNAL_OFF
from osmosis_ai.rollout.core.text import counted
from osmosis_ai.rollout.journal import UNSETTLED, JournalError
from osmosis_ai.rollout.journal.errors import NoJournalError
from osmosis_ai.rollout.journal.explain import journal_error
from osmosis_ai.rollout.journal.occupancy import owners_directory
from osmosis_ai.rollout.journal.owner import is_alive
from osmosis_ai.rollout.journal.place import journal_at, shown
from osmosis_ai.rollout.journal.postgres.address import is_postgres
from osmosis_ai.rollout.journal.sqlite import RESERVE_BYTES
from osmosis_ai.rollout.tooling.doctor.case import Case, check, once
from osmosis_ai.rollout.tooling.doctor.types import Finding, Need, not_checked, ok, problem, warning

BUSY_TIMEOUT_SECONDS = 1.0
SIDE_FILES = ("-wal", "-shm", "-journal", ".new")

NETWORK_FILE_SYSTEMS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2"}
    | {"orangefs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs"}
    | {"fuse.ceph", "fuse.gcsfuse", "fuse.glusterfs", "fuse.mfs", "fuse.s3fs", "fuse.sshfs"}
)
_MEBIBYTE = 1024 * 1024
_MOUNTS = Path("/proc/self/mountinfo")
_LOCKS = Path("/proc/locks")


@dataclass(frozen=True, slots=True)
class Owners:
    """The servers that have the journal open, or ended without closing it."""

    alive: tuple[int | None, ...] = ()
    """Process ids; ``None`` where that is not to be told."""
    dead: int = 0


@once
def owners_of(case: Case) -> Owners:
    """Who has opened the journal, by the locked files beside it."""
    if case.journal_path is None:
        return Owners()
    directory = owners_directory(case.journal_path)
    try:
        tokens = [entry.name for entry in directory.iterdir() if entry.name != "opening"]
    except OSError:
        return Owners()
    alive = [token for token in tokens if is_alive(directory, token)]
    holders = _lock_holders()
    process_ids = []
    for token in alive:
        with suppress(OSError):
            process_ids.append(holders.get((directory / token).stat().st_ino))
    return Owners(tuple(process_ids), len(tokens) - len(alive))


def _lock_holders() -> dict[int, int]:
    """Inode to process id, of all locked files; ``{}`` but on Linux."""
    holders = {}
    with suppress(OSError, ValueError, IndexError):
        for line in _LOCKS.read_text(encoding="ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK":
                holders[int(fields[5].rpartition(":")[2])] = int(fields[4])
    return holders


@once
def unsettled_in(case: Case) -> int | str | None:
    """How many rollouts a trainer still waits for, or why the journal cannot be used; ``None``: there is none yet."""
    owners_of(case)  # first: whoever opens the journal is one, and sweeps dead ones away
    path = case.journal_path
    if case.journal == JOURNAL_OFF or (path is not None and not os.path.lexists(path)):
        return None

    async def count() -> int:
        where = case.journal
        async with journal_at(where, create=False, busy_timeout_seconds=BUSY_TIMEOUT_SECONDS) as journal:
            if path is None:
                await journal.claim_abandoned(0)  # nothing, but what only who may write can do
            counts = await journal.counts()
            return sum(counts[state] for state in UNSETTLED)

    try:
        return asyncio.run(count())
    except NoJournalError as error:
        return None if path is None else str(error)
    except (JournalError, OSError, sqlite3.Error) as error:
        return str(error if path is None else journal_error(path, error))


def why_not_writable(path: Path) -> str | None:
    """Why no file can be made at ``path``, whose folder need not exist yet; ``None`` if one can."""
    folder = nearest_folder(path.parent)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        return f"{path} cannot be written ({reason}: {folder})."


def nearest_folder(folder: Path) -> Path:
    """``folder``, or the nearest one above it that exists, be it a folder or not."""
    folder = folder.absolute()
    return next((each for each in (folder, *folder.parents) if os.path.lexists(each)), folder)


def file_system_of(path: Path, mounts: Path = _MOUNTS) -> str:
    """The type of the file system that ``path`` is or would be on; ``""`` but on Linux (proc_pid_mountinfo(5))."""
    place = nearest_folder(path.parent).resolve()
    longest, kind = -1, ""
    with suppress(OSError, ValueError, IndexError):
        for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
            about, _, source = line.partition(" - ")
            mount_point = about.split()[4].replace("\\040", " ")
            # Of two mounts on one point, the later one is seen.
            if place.is_relative_to(mount_point) and len(mount_point) >= longest:
                longest, kind = len(mount_point), source.split()[0]
    return kind


def _free_bytes(path: Path) -> int | None:
    with suppress(OSError):
        disk = shutil.disk_usage(nearest_folder(path.parent))
        # A file system without blocks keeps no files: /proc and the like.
        return disk.free if disk.total else None
    return None


@check("journal", "the journal can be used")
def check_journal(case: Case) -> Finding:
    path = case.journal_path
    elsewhere = "Let this user write there, or name another place with --journal."
    if case.journal == JOURNAL_OFF:
        return warning(
            "The journal is off: what was accepted is lost with the process.",
            "Leave out --journal off, unless rollouts may be lost.",
        )
    if sys.platform == "win32" and path is not None:
        return problem("The journal needs POSIX file locks, which Windows lacks.", elsewhere)
    unsettled = unsettled_in(case)
    if isinstance(unsettled, str):
        # The journal's own sentences end with what to do.
        message, colon, fix = unsettled.rpartition(": ")
        return problem(f"{message}.", fix[0].upper() + fix[1:]) if colon else problem(unsettled, elsewhere)
    if path is None:
        return ok(
            f"{shown(case.journal)}{' answers; the first server makes the journal' if unsettled is None else ''}."
        )
    if unsettled is None and (reason := why_not_writable(path)) is not None:
        return problem(reason, elsewhere)
    return ok(f"{path}{' can be made' if unsettled is None else ''}.")


@check("journal-disk", "the journal's disk has room")
def check_disk(case: Case) -> Finding:
    if case.journal_path is None:
        return ok("The journal is off." if case.journal == JOURNAL_OFF else "The journal is in a database.")
    free = _free_bytes(case.journal_path)
    if free is None:
        return not_checked("How much room there is cannot be told.")
    if free < RESERVE_BYTES:
        return problem(
            f"The disk has {free / _MEBIBYTE:.1f} MiB left; under {RESERVE_BYTES // _MEBIBYTE} inits get 503.",
            "Free some space, or name a place on another disk with --journal.",
        )
    return ok(f"{free // _MEBIBYTE} MiB left.")


@check("journal-file-system", "the journal is on a local disk")
def check_file_system(case: Case) -> Finding:
    kind = "" if case.journal_path is None else file_system_of(case.journal_path)
    if kind in NETWORK_FILE_SYSTEMS:
        return warning(
            f"The journal is on a network file system ({kind}), where locks may not hold.",
            "Name a place on a local disk with --journal.",
        )
    return ok(f"{kind}." if kind else "Not a network file system.")


@check("journal-owner", "no other server uses the journal")
def check_owner(case: Case) -> Finding:
    if is_postgres(case.journal):
        return ok("The journal is in a database, for any number of servers of one agent.")
    owners = owners_of(case).alive
    if not owners:
        return ok("No other server uses the journal.")
    known = ", ".join(f"process {owner}" for owner in owners if owner is not None)
    users = f"{len(owners)} running servers use" if len(owners) > 1 else "A running server uses"
    return warning(
        f"{users} the journal{f' ({known})' if known else ''}.",
        "That is right for workers of one server and servers of one agent; give another agent its own journal.",
    )


@check("journal-leftovers", "no server was killed")
def check_leftovers(case: Case) -> Finding:
    path, owners, unsettled = case.journal_path, owners_of(case), unsettled_in(case)
    owed = unsettled if isinstance(unsettled, int) else 0
    if path is not None and unsettled is None:
        orphans = [side.name for end in SIDE_FILES if (side := path.with_name(path.name + end)).exists()]
        if orphans:
            return warning(
                f"{', '.join(orphans)} is there without its journal: beside a -wal no server starts.",
                "If the journal was moved, move it back: what it owes is in both. Else see 'osmosis journal salvage'.",
            )
    if owners.dead and not owners.alive and owed:
        return warning(
            f"A server ended without closing the journal, and owes {counted(owed, 'result')} (stale lock).",
            "Start the server: it reports and delivers them; delete nothing.",
        )
    if owners.dead:
        return warning(
            f"{owners.dead} stale locks of servers that were killed are left beside the journal.",
            "Nothing to do: the next server that opens it removes them; see who kills it (OOM, a short stop timeout).",
        )
    return ok(f"Nothing; {counted(owed, 'result')} on the way." if owed else "Nothing.")


@check("traces", "traces can be written", Need.TRACES)
def check_traces(case: Case) -> Finding:
    folder = Path(case.traces or "")
    reason = why_not_writable(folder / "trace")
    if reason is None and folder.exists() and not folder.is_dir():
        reason = f"{folder} is no folder."
    if reason is not None:
        return problem(f"Traces cannot be written: {reason}", "Let this user write there, or name another --log DIR.")
    return ok(f"{folder}.")
