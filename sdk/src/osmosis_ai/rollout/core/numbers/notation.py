"""How a number is written: its digits and marks, what stands before it, the power of ten behind it, and its value.

Every digit is kept. Possessive quantifiers (``*+``) never backtrack: reading takes linear time.
"""

import re
import unicodedata
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation

_SIGNS = dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-")
_SPACES = dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " ")
_NOTHING = dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\u20e3\ufe0f\ufeff", None)
_ALIKE = {
    "\uff0b": "+",
    "\uff0e": ".",
    "\uff0c": ",",
    "\uff04": "$",
    "\uff05": "%",
    "\uff1d": "=",
    "\u066b": ".",
    "\u066c": ",",
    "\uff08": "(",
    "\uff09": ")",
    "\u3010": "[",
    "\u3011": "]",
    "\uff1a": ":",
    "\u00ba": "\u00b0",
}
TIDY = str.maketrans({**_SIGNS, **_SPACES, **_NOTHING, **_ALIKE})

_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_VULGAR_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")
_KILO = re.compile("千(?=[克米瓦卡焦赫])")

_QUOTES = "\"'\u2018\u2019\u201c\u201d\u00ab\u00bb"
CURRENCY = r"(?:USD|EUR|GBP|JPY|CNY|RMB|INR|CAD|AUD|CHF|[A-Z]{1,2}\$|Rs\.?)"
_PLAIN = r"[0-9]++ (?: \.[0-9]++ )?+"
_BLANK = r"[^\S\n]*+"
LEAD = r"""(?: (?i: \b (?: (?:so|thus|hence|therefore) ,?+ \ )?
    (?: (?:the\ )? (?:final\ |correct\ )? (?:answer|ans|result|total) (?:\ is)? \b | (?:so|thus|hence|therefore)\b ) )
    | \u7b54\u6848 [\u662f\u4e3a\u70ba]? ) [*_]*+ [.:,]?+"""
"""What comes before an answer, as a verbose pattern."""
# LaTeX takes a digit without braces, and that one alone.
_PART = rf"(?: \{{ \s*+ {_PLAIN} \s*+ \}} | [0-9] )"

NUMBER = re.compile(
    rf"""
    # Markdown, LaTeX, quotes, "x =", "Answer:" and currencies before it
    (?: [\s*_`{_QUOTES}$€£¥₹(\[{{}}=≈≃≅\u223c] | ~(?!~) | \\[$(\[,;:!\ ]
      | {LEAD} | (?i: exactly \b ) | < (?! (?:del|s|strike)> ) [a-zA-Z]++ [0-9]? >
      | \\(?:approx|sim|boxed|fbox|text|textbf|mathbf|mathrm|left)(?![a-zA-Z])
      | [a-zA-Z]\ ?= | {CURRENCY} (?=[\s0-9.$]) )*+
    (?P<sign> [-+] | (?:minus|negative)\b )?+ (?: [\s$€£¥₹] | \\(?=\$) | {CURRENCY} )*+
    (?: \\[cdt]?frac \s*+ (?P<top> \{{ \s*+ -{_PLAIN} \s*+ \}} | {_PART} ) \s*+ (?P<under> {_PART} )
      | (?P<digits>
          [0-9]{{1,3}} (?P<mark> , | \{{,\}} | ['\u2019_\ ] | \\, ) [0-9]{{3}} (?: (?P=mark) [0-9]{{3}} )*+ (?![0-9])
            (?: \.[0-9]++ )?+
        | {_PLAIN}
        | \.[0-9]++
        )
        (?P<exponent> [eE][-+]?+[0-9]++ )?+
        (?: {_BLANK} (?: [\u00d7*x] | \\times | \\cdot ) {_BLANK} 10 {_BLANK}
            \^ \{{?+ (?P<power> [-+]?+[0-9]++ ) \}}?+ )?
        (?: {_BLANK} [/\u2044] {_BLANK} (?P<divisor> [1-9][0-9]*+ ) (?!\.[0-9])
          | {_BLANK} (?P<part> [0-9]++ ) {_BLANK} [/\u2044] {_BLANK} (?P<whole> [1-9][0-9]*+ )
          | {_BLANK} \\[cdt]?frac \s*+ (?P<latex_part> {_PART} ) \s*+ (?P<latex_whole> {_PART} ) )?
    )
    """,
    re.VERBOSE,
)

_WORK = re.compile(
    rf"""
    (?: [^\S\n] | [*_`$({{[] | \\[(\[] | \\(?:boxed|fbox) )*+ (?: [a-zA-Z]\ ?= )?+
    (?: [0-9]{{1,3}} (?: ,[0-9]{{3}} )++ (?![0-9]) | [0-9\s.+\-*/\u00d7\u00f7\u00b7^()\[\]{{}}$€£¥₹%=_`]
      | {CURRENCY} | x (?=\ ?[0-9($]) | \\[()\[\],;:!$%\ ]
      | \\(?:times|cdot|div|[dt]?frac|left|right|text|mathrm)(?![a-zA-Z]) )*+ \Z
    """,
    re.VERBOSE,
)
_OPERATION = re.compile(
    r"[0-9)}\]%](?:[\s$*_`]|\\[)\],;:!$% ]){0,9}+(?:[-+/\u00d7\u00f7\u00b7^x]|\\(?:times|cdot|div))|[0-9] ?\*|frac"
)

_TENS = {"hundred": 2, "thousand": 3, "k": 3, "lakh": 5, "m": 6, "mio": 6, "million": 6, "crore": 7}
_TENS |= {"bn": 9, "mrd": 9, "billion": 9, "trillion": 12}
_TENS |= {"百": 2, "千": 3, "万": 4, "萬": 4, "亿": 8, "億": 8, "백": 2, "천": 3, "만": 4, "억": 8}
"""Powers of ten, by name."""
SCALE = re.compile(
    r"""
    (?: [^\S\n] | [*_`)\]}] )*+
    (?P<scale>
      (?: (?i: hundred | thousand | million | billion | trillion | lakh | crore | dozen )(?:s|\ of)?+
        | (?i: mio | mrd | bn ) | [kKM] ) (?![^\W\d_])
      | [百千万萬亿億백천만억] )
    """,
    re.VERBOSE,
)


def tidied(text: str) -> str:
    """``text`` with the digits, signs, spaces and fractions of other scripts and fonts as ASCII has them."""
    text = _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text.translate(TIDY))
    text = _VULGAR_FRACTION.sub(lambda fraction: " " + unicodedata.normalize("NFKC", fraction[0]), text)
    return _KILO.sub("k", text)


def without_work(text: str) -> str:
    """``18 apples`` of ``2 + 16 = 18 apples``; anything else as it is."""
    line, newline, below = text.lstrip().partition("\n")
    work, _, result = line.rpartition("=")
    return result + newline + below if _OPERATION.search(work) and _WORK.match(work) else text


def value_of(match: "re.Match[str]", scale: str | None, is_done: bool) -> Decimal:
    """The number that ``NUMBER`` has matched, times ``scale``.

    Raises:
        InvalidOperation: an exponent beyond any use, no divisor, or with ``is_done`` work that is left undone.
    """
    exact = Context(prec=match.end() - match.start() + 40, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[InvalidOperation])
    is_quotient = True
    if match["top"] is not None:
        number = _ratio(exact, match["top"], match["under"])
    else:
        number = Decimal(re.sub(r"[^0-9.]", "", match["digits"]) + (match["exponent"] or ""))
        if match["power"] is not None:
            number = exact.multiply(number, Decimal(f"1e{match['power']}"))
        if match["divisor"] is not None:
            number = exact.divide(number, Decimal(match["divisor"]))
        elif match["whole"] is not None:
            number = exact.add(number, _ratio(exact, match["part"], match["whole"]))
        elif match["latex_whole"] is not None:
            number = exact.add(number, _ratio(exact, match["latex_part"], match["latex_whole"]))
        else:
            is_quotient = False
    if is_done and ((is_quotient and is_whole(number)) or (scale or "").lower().startswith("dozen")):
        raise InvalidOperation
    if scale is not None:
        number = exact.multiply(number, _factor(scale))
    return number.copy_negate() if match["sign"] not in (None, "+") else number


def is_whole(number: Decimal) -> bool:
    """Whether a finite ``number`` is an integer, of any size."""
    _, digits, exponent = number.as_tuple()
    return not isinstance(exponent, int) or exponent >= 0 or not any(digits[exponent:])


def _ratio(exact: Context, part: str, whole: str) -> Decimal:
    above, below = (Decimal(text.strip("{}").strip()) for text in (part, whole))
    if not below:
        raise InvalidOperation
    return exact.divide(above, below)


def _factor(scale: str) -> Decimal:
    name = scale.partition(" ")[0].lower().removesuffix("s")
    return Decimal(12) if name == "dozen" else Decimal(f"1e{_TENS[name]}")
