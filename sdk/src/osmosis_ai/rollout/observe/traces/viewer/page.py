"""The page: its files, and the Content-Security-Policy that goes with them."""

from base64 import b64encode
from functools import cache
from hashlib import sha256
from importlib.resources import files

SCRIPTS = tuple(
    f"{name}.js"
    for name in (
        *(
            "text",
            "events",
            "source",
            "stats",
            "query",
            "address",
            "keys",
            "charts",
            "grid",
            "table",
            "problems",
            "overview",
        ),
        *("markdown", "conversation", "asked", "runs", "timeline", "pinned", "detail", "main"),
    )
)
"""In the order in which they are read: each uses only what stands before it."""
STYLE = "style.css"

SERVED_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_DATA = '<script type="application/json" id="data">'


@cache
def static_file(name: str) -> str:
    """The text of one of the page's files."""
    return files(__package__).joinpath("static", name).read_text(encoding="utf-8")


def served_page() -> str:
    """The page with links to its files."""
    scripts = "".join(f'<script src="/static/{name}" defer></script>\n' for name in SCRIPTS)
    return _filled("", f'<link rel="stylesheet" href="/static/{STYLE}">', scripts)


def report_page(data: str) -> tuple[str, str]:
    """What comes before and after ``data``, a JSON text with no ``<`` in it, in a page that needs nothing else."""
    script = "\n".join(static_file(name) for name in SCRIPTS)
    style = static_file(STYLE)
    policy = (
        f"default-src 'none'; script-src 'sha256-{_digest(script)}'; style-src 'sha256-{_digest(style)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    return _filled(meta, f"<style>{style}</style>", f"{_DATA}{data}</script>\n<script>{script}</script>\n"), policy


def _digest(text: str) -> str:
    return b64encode(sha256(text.encode()).digest()).decode()


def _filled(meta: str, style: str, scripts: str) -> str:
    page = static_file("index.html")
    return page.replace("<!--meta-->", meta).replace("<!--style-->", style).replace("<!--scripts-->", scripts)
