"""The protocol of 0.3 in front of the same rollouts: a trainer starts one, and fetches its result.

See ``docs/protocol-0.3.md``.

    bodies    what comes and goes over the wire; a start becomes an init and its ``Terms``
    results   the one result of a rollout as 0.3 says it
    leases    how long a rollout goes on that nobody asks for
    lane      a poll waits, authenticates, settles

HTTP is ``server/pull_routes.py``; what a start asks beyond an init, ``server/terms.py``.

From the 202 on it is a rollout like any other: admission, scheduler, execution, journal and recovery are the same. Its
record has a key of its own space (``PULL``), its recorded result is the body of the poll, and nobody posts it.
"""
