"""The final answer of a model: the number after the last ``####`` (the convention of GSM8K, arXiv:2110.14168).

Whatever the text, reading it never raises and takes linear time.
"""

import re
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Any

MARK = "####"

# Digits enough for any tolerance; nothing is out of range, so that no comparison raises.
_COMPARISON = Context(prec=40, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])

# A number, alone on its line but for the Markdown, LaTeX, currency signs and words models put around it, as in
# "**$1,234.50** a day". Possessive quantifiers (`*+`) never backtrack: the time taken is linear in the text.
_NUMBER = re.compile(
    r"""
    (?: [\s*_`~$€£¥₹(\[{] | \\[$(\[] | \\(?:boxed|fbox|text|textbf|mathbf|mathrm)\{ )*+
    (?P<sign> [-+\u2212]?+ ) [\s$€£¥₹\\]*+
    (?P<digits>
        [0-9]{1,3} (?: (?:,|\{,\}) [0-9]{3} )++ (?![0-9]) (?: \.[0-9]++ )?+  # 1,234.5
        | [0-9]++ (?: \.[0-9]++ )?+                                          # 1234.5
        | \.[0-9]++                                                          # .5
    )
    (?P<exponent> (?: [eE][-+]?+[0-9]++ )?+ )
    (?: [^\S\n] | [*_`~$€£¥₹%)\]}.,;] | \\[%)\]] )*+
    (?: (?: [^\W\d_] | [<(] ) [^0-9\n]*+ )?+ (?: \n | \Z )  # words, but no second number
    """,
    re.VERBOSE,
)


def final_number(text: Any) -> Decimal | None:
    """The number after the last ``####``, every digit of it; ``None`` where there is no mark, or not one number.

    Thousands separators, currency and percent signs, Markdown, LaTeX and words around it are read over, so that
    ``"#### **$1,234.50** a day"`` is 1234.50. What is no text has no final number.
    """
    return read_number(text) if isinstance(text, str) and MARK in text else None


def read_number(value: Any) -> Decimal | None:
    """The number that a ground truth is: an ``int``, ``float`` or ``Decimal``, or a text as ``final_number`` reads it.

    A text needs no ``####``. ``None`` for anything else, for NaN and infinities, and for booleans.
    """
    if isinstance(value, str):
        match = _NUMBER.match(value.rpartition(MARK)[2])
        if match is None:
            return None
        sign = "" if match["sign"] in ("", "+") else "-"
        value = sign + re.sub(r"[^0-9.]", "", match["digits"]) + match["exponent"]
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:  # an exponent beyond any use
        return None
    return number if number.is_finite() else None


def is_close(number: Decimal, truth: Decimal, tolerance: Decimal | float) -> bool:
    """Whether ``number`` is off ``truth`` by at most ``tolerance``: absolute, or relative to ``truth``."""
    difference = _COMPARISON.subtract(number, truth).copy_abs()
    allowed = _COMPARISON.multiply(Decimal(str(tolerance)), max(Decimal(1), truth.copy_abs()))
    return difference <= allowed
