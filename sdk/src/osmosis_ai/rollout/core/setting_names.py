"""Variables that look like settings and are none: a misspelt one would leave its default in place, unnoticed."""

import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel

logger = logging.getLogger(__name__)

LIKENESS = 0.85
LIKENESS_OF_SHORT_NAMES = 0.6
_told: set[str] = set()


def tell_of_unknown(models: Iterable[type[BaseModel]]) -> None:
    """Log each variable that begins as one of ``models`` does and is none of theirs; once a process."""
    models = list(models)
    known = {variable: model for model in models for variable in variables_of(model)}
    prefix = min((str(model.model_config.get("env_prefix", "")) for model in models), key=len)
    for name in os.environ:
        if name.upper().startswith(prefix):
            for unknown, likely in _unknown(name.upper(), os.environ[name], known):
                if unknown not in _told:
                    _told.add(unknown)
                    advice = f"; did you mean {likely}?" if likely else ": osmosis doctor knows them all."
                    logger.warning("%a is no setting, so it is ignored%s", unknown, advice)


def variables_of(model: type[BaseModel]) -> Iterator[str]:
    """The variables that a model of settings reads."""
    prefix = str(model.model_config.get("env_prefix", ""))
    return (prefix + field.upper() for field in model.model_fields)


def likely_name(name: str, known: Iterable[str], likeness: float = LIKENESS) -> str | None:
    """The one of ``known`` that was probably meant."""
    # The variable of a whole group is like each of its own, and never what was meant.
    own = [each for each in known if not name.startswith(f"{each}_")]
    return next(iter(get_close_matches(name, own, n=1, cutoff=likeness)), None)


def _unknown(name: str, value: str, known: Mapping[str, type[BaseModel]]) -> Iterator[tuple[str, str | None]]:
    """``name`` itself, or what its JSON names and is no setting; each with what was probably meant."""
    if name not in known:
        yield name, likely_name(name, known)
        return
    group: Any = known[name].model_fields[_field(known[name], name)].annotation
    if not (isinstance(group, type) and issubclass(group, BaseModel)):
        return
    try:
        given = json.loads(value)
    except (ValueError, RecursionError):
        return  # that it is no JSON is told of as a wrong value
    for field in given if isinstance(given, dict) else ():
        if field.lower() not in group.model_fields:
            yield f"{name}: {field}", likely_name(field.lower(), group.model_fields, LIKENESS_OF_SHORT_NAMES)


def _field(model: type[BaseModel], variable: str) -> str:
    return variable.removeprefix(str(model.model_config.get("env_prefix", ""))).lower()
