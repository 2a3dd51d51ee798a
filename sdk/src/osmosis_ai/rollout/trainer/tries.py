"""The ids of further tries: ``p1..2`` is the second of ``p1``.

Invariant: what ends so was made here, as a given id that does is refused. So a further try never has the id of another
rollout, which ``1.2`` as the second of ``1`` had where sections are the ids.
"""

import re

_FURTHER = re.compile(r"\.\.[0-9]+\Z")


def id_of_try(rollout_id: str, number: int) -> str:
    """The id of try ``number``, from 1, of what was given as ``rollout_id``.

    Raises:
        ValueError: the given id ends like that of a further try.
    """
    if _FURTHER.search(rollout_id):
        raise ValueError(
            f"The rollout id {rollout_id!r} ends like that of a further try: let it not end in '..' and a number."
        )
    return rollout_id if number == 1 else f"{rollout_id}..{number}"
