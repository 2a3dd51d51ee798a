"""One number in a text, as people and models write it.

A text is one number, or none: what may also mean another number is none. Reading never raises, and takes linear time.

    18.00  $1,234.50 a day  8 000  -7  1/2  1 1/2  \\frac{1}{2}  1.2e3  1.2 \\times 10^3  **18** apples  x = 18
    18k, 18 thousand, 18 dozen               are 18,000, 18,000 and 216, never 18
    18 or 19, 18x, 18^2, 18 and a half       are none

Words may follow a number as its unit, unless one of them is a number, an operation, or says that there is more to come
(``_NO_UNIT``). A unit may have the exponent 2 or 3.
"""

import re
import unicodedata
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal, InvalidOperation

_SIGNS = dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-")
_SPACES = dict.fromkeys("\u00a0\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " ")
_NOTHING = dict.fromkeys("\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2066\u2067\u2068\u2069\ufeff", None)
_ALIKE = {
    "\uff0b": "+",
    "\uff0e": ".",
    "\uff0c": ",",
    "\uff04": "$",
    "\uff05": "%",
    "\uff1d": "=",
    "\u066b": ".",
    "\u066c": ",",
}
_TIDY = str.maketrans({**_SIGNS, **_SPACES, **_NOTHING, **_ALIKE})

_FOREIGN_DIGIT = re.compile(r"(?![0-9])\d")
_ALONE = re.compile(r"\s*+(-?[0-9]++(?:\.[0-9]++)?+)\s*+\Z")
_VULGAR_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")

_QUOTES = "\"'\u2018\u2019\u201c\u201d\u00ab\u00bb"
_CURRENCY = r"(?:USD|EUR|GBP|JPY|CNY|RMB|INR|CAD|AUD|CHF|US\$|Rs\.?)"
_PLAIN = r"[0-9]++ (?: \.[0-9]++ )?+"
_BLANK = r"[^\S\n]*+"

# Possessive quantifiers (`*+`) never backtrack.
_NUMBER = re.compile(
    rf"""
    # Markdown, LaTeX, quotes, "x =" and currencies before it
    (?: [\s*_`~{_QUOTES}$€£¥₹(\[{{=≈≃≅] | \\[$(\[,;:!\ ]
      | \\(?:approx|sim|boxed|fbox|text|textbf|mathbf|mathrm)(?![a-zA-Z]) | [a-zA-Z]\ ?= | {_CURRENCY} (?=[\s0-9.$]) )*+
    (?P<sign> [-+] | (?:minus|negative)\b )?+ (?: [\s$€£¥₹] | \\(?=\$) | {_CURRENCY} )*+
    (?: \\[dt]?frac \s*+ \{{ \s*+ (?P<top> -?+ {_PLAIN} ) \s*+ \}} \s*+ \{{ \s*+ (?P<under> {_PLAIN} ) \s*+ \}}
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
          | {_BLANK} \\[dt]?frac \{{ (?P<latex_part> [0-9]++ ) \}} \{{ (?P<latex_whole> [0-9]++ ) \}} )?
    )
    """,
    re.VERBOSE,
)

_TENS = {"hundred": 2, "thousand": 3, "k": 3, "lakh": 5, "m": 6, "mio": 6, "million": 6, "crore": 7}
_TENS |= {"bn": 9, "mrd": 9, "billion": 9, "trillion": 12}
_TENS |= {"百": 2, "千": 3, "万": 4, "萬": 4, "亿": 8, "億": 8}
"""Powers of ten, by name."""
_SCALE = re.compile(
    r"""
    (?: [\s*_`)\]}] )*+
    (?P<scale>
      (?: (?i: hundred | thousand | million | billion | trillion | lakh | crore | dozen )(?:s|\ of)?+
        | (?i: mio | mrd | bn ) | [kKM] ) (?![^\W\d_])
      | [百千万萬亿億] )
    """,
    re.VERBOSE,
)

_NO_UNIT = re.compile(
    r"""
    \b (?: zero | one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve
         | (?:thir|four|fif|six|seven|eigh|nine)teen | (?:twen|thir|for|fif|six|seven|eigh|nine)ty | half | halves
         | (?:hundred|thousand|million|billion|trillion|dozen)s? | score | gross | lakh | crore
         | k | mil(?:le)? | tausend
         | plus | minus | times | over | divided | multiplied | point | squared | cubed | factorial | mod | modulo
         | remainder | sqrt | pi | or | nor | not | either | maybe | unless | but | and\s+(?:an?|some|more) ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNIT_LETTERS = frozenset("mgslhLVWANJCFda")
"""Units of one letter, and the article, as in "18 a day"."""
_VARIABLES = frozenset("xyznijtπθλμe")
_TOKEN = re.compile(r"<[^<>\n]*+>")
_COMMAND = re.compile(
    r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|circ|degree|percent|quad|[%)\],;:!$ ])|\^\{?+\\circ\}?+"
)
_UNIT_EXPONENT = re.compile(r"(?<=[^\W\d_])(?:\^?\{?[23]\}?|[²³])(?![0-9])")
_WORD = re.compile(r"[^\W\d_]+")


def number_in(text: str) -> Decimal | None:
    """The number that ``text`` begins with, where the rest of its line leaves it as it is.

    Every digit is kept; a fraction has forty more than what it is made of.
    """
    if plain := _ALONE.match(text):  # as most answers are; the rest finds the same, ten times slower
        return Decimal(plain[1])
    text = _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text.translate(_TIDY))
    text = _VULGAR_FRACTION.sub(lambda fraction: " " + unicodedata.normalize("NFKC", fraction[0]), text)
    match = _NUMBER.match(text)
    if match is None:
        return None
    end = match.end()
    scale = _SCALE.match(text, end)
    if scale is not None:
        end = scale.end()
    if not _is_unit(text[end:].partition("\n")[0]):
        return None
    try:
        number = _value(match, scale and scale["scale"])
    except InvalidOperation:  # an exponent beyond any use
        return None
    return number if number.is_finite() else None


def _value(match: "re.Match[str]", scale: str | None) -> Decimal:
    exact = Context(prec=match.end() - match.start() + 40, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[InvalidOperation])
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
    if scale is not None:
        number = exact.multiply(number, _factor(scale))
    return number.copy_negate() if match["sign"] not in (None, "+") else number


def _ratio(exact: Context, part: str, whole: str) -> Decimal:
    if not Decimal(whole):
        raise InvalidOperation
    return exact.divide(Decimal(part), Decimal(whole))


def _factor(scale: str) -> Decimal:
    name = scale.partition(" ")[0].lower().removesuffix("s")
    return Decimal(12) if name == "dozen" else Decimal(f"1e{_TENS[name]}")


def _is_unit(tail: str) -> bool:
    """Whether the rest of a line leaves the number before it as it is."""
    tail = _UNIT_EXPONENT.sub("", _COMMAND.sub(" ", _TOKEN.sub(" ", tail)))
    for character in set(tail):
        if character in "\\^" or character.isnumeric():
            return False
        if unicodedata.category(character) == "Sm" and character not in "|~":
            return False
    words = _WORD.findall(tail)
    if not words:
        return True
    first = words[0]
    if len(first) == 1 and first.isascii():
        is_unit = first in _UNIT_LETTERS and not (first == "a" and tail.startswith("a"))
    else:
        is_unit = not set(first) <= _VARIABLES
    if not is_unit or first.lower() == "and":
        return False
    return _NO_UNIT.search(tail) is None
