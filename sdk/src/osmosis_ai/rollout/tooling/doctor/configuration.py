"""Settings, the ``.env`` file, the server's own key, and that of the model of ``osmosis test``. No value is shown."""

import os
import re
import stat

from osmosis_ai.rollout.core.consts import MCP_KEY_VARIABLE, NO_DOTENV_VARIABLE, TRAINER_KEY_VARIABLE
from osmosis_ai.rollout.core.dotenv import nearest_dotenv
from osmosis_ai.rollout.core.setting_names import likely_name, variables_of
from osmosis_ai.rollout.core.settings import MODELS
from osmosis_ai.rollout.core.trace.folder import TRACES_VARIABLE
from osmosis_ai.rollout.server.public_address import PUBLIC_HOST_VARIABLE
from osmosis_ai.rollout.server.serve import HOST_VARIABLE, PORT_VARIABLE
from osmosis_ai.rollout.server.startup import API_KEY_VARIABLE
from osmosis_ai.rollout.tooling.doctor.case import Case, check
from osmosis_ai.rollout.tooling.doctor.types import Finding, ok, problem, warning
from osmosis_ai.rollout.wire.addresses import is_sendable

MIN_KEY_LENGTH = 16
MAX_PORT = 65_535
NEW_KEY = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"

_OTHER_VARIABLES = frozenset(
    {
        MCP_KEY_VARIABLE,
        NO_DOTENV_VARIABLE,
        PUBLIC_HOST_VARIABLE,
        TRAINER_KEY_VARIABLE,
        TRACES_VARIABLE,
        HOST_VARIABLE,
        PORT_VARIABLE,
    }
)
_PREFIX = "OSMOSIS_ROLLOUT_"
_PLACEHOLDER = re.compile(
    r"(?i)(change.?me|choose.?one|your.?(api.?)?key|secret|password|test|example|placeholder|x+|<.*>|\.+).{0,12}"
)
_SECRET_LINE = re.compile(
    r"^\s*(?:export\s+)?\w*(?:KEY|SECRET|TOKEN|PASSWORD)\w*\s*=\s*\S", re.MULTILINE | re.IGNORECASE
)


@check("dotenv", ".env can be read, and by nobody else")
def check_dotenv(case: Case) -> Finding:
    if os.environ.get(NO_DOTENV_VARIABLE):
        return ok(f"Not read, as {NO_DOTENV_VARIABLE} is set.")
    file = nearest_dotenv()
    if file is None:
        return ok("There is none.")
    status = file.stat()
    if hasattr(os, "getuid") and status.st_uid != os.getuid():
        return warning(
            f"{file} belongs to another user, so it is not read.",
            f"Make it yours (chown), or set {NO_DOTENV_VARIABLE}=1 and this warning goes.",
        )
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        return problem(f"{file} cannot be read ({error.strerror}).", f"Correct that, or set {NO_DOTENV_VARIABLE}=1.")
    except UnicodeDecodeError:
        return problem(f"{file} is no UTF-8 text.", f"Save it as UTF-8, or set {NO_DOTENV_VARIABLE}=1.")
    if "\0" in text:
        return problem(f"{file} holds a NUL character.", f"Save it as UTF-8, or set {NO_DOTENV_VARIABLE}=1.")
    if status.st_mode & (stat.S_IRGRP | stat.S_IROTH) and _SECRET_LINE.search(text):
        return warning(f"{file} holds a key, and other users of this machine may read it.", f"chmod 600 {file}")
    return ok(f"{file}.")


@check("settings", "all settings are within bounds")
def check_settings(case: Case) -> Finding:
    wrong = list(case.settings.wrong)
    port = os.environ.get(PORT_VARIABLE)
    if port is not None and not (port.isdecimal() and len(port) < 6 and int(port) <= MAX_PORT):
        wrong.append(f"{PORT_VARIABLE}: it must be a port number, 0 to {MAX_PORT}")
    if wrong:
        return problem("; ".join(wrong) + ".", "Correct it in the environment or in .env.")
    return ok("All within their bounds.")


@check("variables", "no variable is misspelt")
def check_variables(case: Case) -> Finding:
    known = known_variables()
    mistakes: dict[str, str | None] = {}
    for name in sorted(os.environ):
        if name.upper() in known or not name.upper().startswith(("OSMOSIS_", "ROLLOUT_")):
            continue
        likely = likely_name(name.upper(), known)
        if likely or name.upper().startswith(_PREFIX):
            mistakes[name] = likely
    if not mistakes:
        return ok("None misspelt.")
    message = f"Not a setting, so ignored: {', '.join(mistakes)}."
    if meant := [f"{right} for {name}" for name, right in mistakes.items() if right is not None]:
        return problem(message, f"Did you mean {', '.join(meant)}?")
    return warning(message, "Unset it, or look up its name in docs/settings.md.")


def known_variables() -> frozenset[str]:
    """Every variable that the SDK or the example reads."""
    return _OTHER_VARIABLES.union(*map(variables_of, MODELS))


@check("key", "others need a key to use the server")
def check_key(case: Case) -> Finding:
    if not case.is_open:
        return ok(f"Not needed: {case.host} is this machine alone.")
    if case.setup.local:
        return problem(
            f"--local serves without a key, on {case.host}: whoever reaches the port can use the agent.",
            f"Leave out --host, or leave out --local and set {API_KEY_VARIABLE}.",
        )
    if case.api_key is None:
        return warning(
            "No key is set: osmosis serve makes one up at each start; python -m server and uvicorn let everybody in.",
            f"Put {API_KEY_VARIABLE}=... into .env; a good one: {NEW_KEY}",
        )
    return ok("Set.")


@check("key-strength", "the key can be sent, and not be guessed")
def check_key_strength(case: Case) -> Finding:
    key = case.api_key
    if key is None:
        return ok("There is no key.")
    if not key.strip():
        return problem("The key is empty: nobody could use the server.", f"Make one: {NEW_KEY}")
    if not is_sendable(key) or " " in key:
        return problem(
            "The key has spaces or characters that no Authorization header can carry: no trainer could send it.",
            f"Use letters, digits, - and _ only: {NEW_KEY}",
        )
    if len(key) < MIN_KEY_LENGTH or _PLACEHOLDER.fullmatch(key):
        return warning(
            f"The key is easy to guess ({len(key)} characters, or a usual word).", f"Make a better one: {NEW_KEY}"
        )
    return ok("Long enough.")
