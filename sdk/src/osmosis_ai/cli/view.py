"""``osmosis view``: traces on a page of this machine, or as one file.

Exit codes: 0 done (or ended by Ctrl-C), 1 nothing to show, 2 usage.
"""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from osmosis_ai.cli import options as table
from osmosis_ai.cli.traces import index_of
from osmosis_ai.rollout.core.json_document import write_document
from osmosis_ai.rollout.core.user_errors import CLIError, UsageError

if TYPE_CHECKING:
    from osmosis_ai.rollout.observe.traces.index import TraceIndex


def view(
    path: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of traces, as serve --log writes, or one trace.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write one self-contained HTML file instead.")
    ] = None,
    port: Annotated[
        int,
        typer.Option(
            "--port", "-p", min=0, max=65535, help="Port on 127.0.0.1; 0 takes that of the last time, or any."
        ),
    ] = 0,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    as_json: table.AsJson = False,
) -> int:
    """Look at traces: every rollout, what came of it and why, live while the server runs."""
    index = index_of(path, keep=True)
    if output is not None:
        if open_browser or port:
            raise UsageError("--output writes a file; --port and --open are for the page.")
        return _write(index, output, as_json)
    return _serve(index, port, open_browser, as_json)


def _write(index: "TraceIndex", output: Path, as_json: bool) -> int:
    from osmosis_ai.rollout.core.text import counted
    from osmosis_ai.rollout.observe.traces.viewer.report import write_report

    index.refresh()
    total = len(index.rollouts)
    if not total:
        raise CLIError(f"{index.root} holds no rollouts, so there is nothing to report.")
    written = write_report(index, output)
    size = output.stat().st_size
    if as_json:
        told = {"file": str(output), "bytes": size, "rollouts": total, "listed": written.rows, "whole": written.whole}
        write_document([json.dumps(told, indent=2), "\n"])
        return 0
    without = f", without {written.left_out}" if written.left_out else ""
    typer.echo(
        f"{output}: {written.rows:,} of {counted(total, 'rollout')}, "
        f"{written.whole:,} with conversation and events{without} ({size / 1e6:.1f} MB)."
    )
    return 0


def _serve(index: "TraceIndex", port: int, open_browser: bool, as_json: bool) -> int:
    from osmosis_ai.rollout.observe.traces.viewer.serve import serve_viewer

    def tell(url: str) -> None:
        if as_json:
            write_document([json.dumps({"url": url, "folder": str(index.root), "pid": os.getpid()}), "\n"])
        else:
            typer.echo(f"Traces of {index.root}: {url}  (Ctrl-C ends)")
        if open_browser:
            import webbrowser

            webbrowser.open(url)

    try:
        serve_viewer(index, port, tell)
    except ImportError as error:
        raise CLIError(f"The page needs the extra 'server': pip install osmosis-ai[server] ({error}).") from error
    except OSError as error:
        raise CLIError(f"Port {port} cannot be used: {error.strerror or error}. Choose another with --port.") from error
    except KeyboardInterrupt:
        pass
    return 0
