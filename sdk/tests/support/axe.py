"""axe-core, which finds what keeps people out of a page; a package of npm, for tests alone."""

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from support.browser import Browser

VERSION = "4.14.1"
SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
_FETCH_SECONDS = 60
# Of what passes, a node a rule is enough to know that the rule was asked.
_RUN = """axe.run(document, {resultTypes: ['violations'], ...%s}).then(({violations, passes}) => ({
    violations: violations.map(({id, nodes}) => [id, nodes.map(node => `${node.target}: ${node.failureSummary}`)]),
    passes: passes.map(({id, nodes}) => [id, nodes.length]),
}))"""
_OF_COLOURS = ["color-contrast", "link-in-text-block"]


class AxeError(Exception):
    """It cannot be had here; the text is a sentence that says why."""


def axe_source(cache: Path) -> str:
    """The script, fetched once into ``cache``.

    Raises:
        AxeError: npm is not here, or does not give it.
    """
    kept = cache / f"axe-core-{VERSION}.tgz"
    if not kept.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise AxeError("axe-core cannot be fetched: there is no npm here.")
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            command = [npm, "pack", "--silent", f"axe-core@{VERSION}"]
            try:
                subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_FETCH_SECONDS)
            except (OSError, subprocess.SubprocessError) as error:
                raise AxeError(f"axe-core cannot be fetched: npm pack failed ({type(error).__name__}).") from error
            [packed] = Path(folder).glob("*.tgz")
            os.replace(packed, kept)  # noqa: PTH105 - whole or not at all, as others fetch it too
    content = kept.read_bytes()
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != SHA512:
        kept.unlink()
        raise AxeError(f"axe-core cannot be used: what npm gave is not version {VERSION} as it was published.")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


def violations_of(page: Browser, source: str) -> dict[str, list[Any]]:
    """What axe finds wrong with the page as it is, by theme; in the dark one, what colours alone can break."""
    page.evaluate(f"{source}\n;typeof axe")
    found = {scheme: _found(page, scheme, rules) for scheme, rules in (("light", None), ("dark", _OF_COLOURS))}
    page.prefer("light")
    return {scheme: violations for scheme, violations in found.items() if violations}


def _found(page: Browser, scheme: str, rules: list[str] | None) -> list[Any]:
    page.prefer(scheme)
    # What fades in would be measured half way.
    page.wait_for("document.getAnimations().length === 0")
    found = page.evaluate(_RUN % json.dumps({} if rules is None else {"runOnly": rules}))
    checked = dict(found["passes"]) | dict(found["violations"])
    for rule in ("color-contrast",) if rules else ("color-contrast", "region"):
        assert rule in checked, json.dumps(found)
    violations: list[Any] = found["violations"]
    return violations
