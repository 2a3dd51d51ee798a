"""One number in a text, as people and models write it.

A text is one number, or none: what may also mean another number is none. Reading never raises, and takes linear time.

    18.00  $1,234.50 a day  8 000  -7  1/2  1 1/2  \\frac{1}{2}  1.2e3  1.2 \\times 10^3  **18** apples  x = 18
    18k, 18 thousand                         are 18,000, never 18
    2 + 16 = 18                              is what comes out, whether or not it does
    18 or 19, 18x, 18^2, 18 and a half       are none
    36/2, 18 dozen                           are none where the work must be done, else 18 and 216

Words may follow a number as its unit. The first is one of ``_UNIT_WORDS``, an English plural ("apples"), or Chinese,
Japanese or Korean; none is a number or an operation, says that there is more to come, or takes the number back
(``_NO_UNIT``, ``_NO_CJK``). Any other word makes it no number: a policy would find the one that is read over and means
another number. A unit may have the exponent 2 or 3, and a percent sign is one: 18% is 18.
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
_ALONE = re.compile(r"\s*+(-?[0-9]++(?:\.[0-9]++)?+)\s*+\Z")
_VULGAR_FRACTION = re.compile("[\u00bc-\u00be\u2150-\u215e\u2189]")

_QUOTES = "\"'\u2018\u2019\u201c\u201d\u00ab\u00bb"
_CURRENCY = r"(?:USD|EUR|GBP|JPY|CNY|RMB|INR|CAD|AUD|CHF|[A-Z]{1,2}\$|Rs\.?)"
_PLAIN = r"[0-9]++ (?: \.[0-9]++ )?+"
_BLANK = r"[^\S\n]*+"
LEAD = r"""(?: (?i: \b (?: (?:so|thus|hence|therefore) ,?+ \ )?
    (?: (?:the\ )? (?:final\ |correct\ )? (?:answer|ans|result|total) (?:\ is)? \b | (?:so|thus|hence|therefore)\b ) )
    | \u7b54\u6848 [\u662f\u4e3a\u70ba]? ) [*_]*+ [.:,]?+"""
"""What comes before an answer, as a verbose pattern."""
# LaTeX takes a digit without braces, and that one alone.
_PART = rf"(?: \{{ \s*+ {_PLAIN} \s*+ \}} | [0-9] )"

# Possessive quantifiers (`*+`) never backtrack.
_NUMBER = re.compile(
    rf"""
    # Markdown, LaTeX, quotes, "x =", "Answer:" and currencies before it
    (?: [\s*_`{_QUOTES}$€£¥₹(\[{{}}=≈≃≅\u223c] | ~(?!~) | \\[$(\[,;:!\ ]
      | {LEAD} | (?i: exactly \b ) | < (?! (?:del|s|strike)> ) [a-zA-Z]++ [0-9]? >
      | \\(?:approx|sim|boxed|fbox|text|textbf|mathbf|mathrm|left)(?![a-zA-Z])
      | [a-zA-Z]\ ?= | {_CURRENCY} (?=[\s0-9.$]) )*+
    (?P<sign> [-+] | (?:minus|negative)\b )?+ (?: [\s$€£¥₹] | \\(?=\$) | {_CURRENCY} )*+
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
      | {_CURRENCY} | x (?=\ ?[0-9($]) | \\[()\[\],;:!$%\ ]
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
_SCALE = re.compile(
    r"""
    (?: [^\S\n] | [*_`)\]}] )*+
    (?P<scale>
      (?: (?i: hundred | thousand | million | billion | trillion | lakh | crore | dozen )(?:s|\ of)?+
        | (?i: mio | mrd | bn ) | [kKM] ) (?![^\W\d_])
      | [百千万萬亿億백천만억] )
    """,
    re.VERBOSE,
)

_NO_UNIT = re.compile(
    r"""
    \b (?: zero | one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve
         | (?:thir|four|fif|six|seven|eigh|nine)teen | (?:twen|thir|for|fif|six|seven|eigh|nine)ty | half | halves
         | (?:hundred|thousand|million|billion|trillion|dozen)s? | score | gross(?:es)? | lakh | crore
         | (?:third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|twelfth|hundredth|thousandth|millionth|billionth)s
         | k | mill?s? | mille | mln | mn | bn | mrd | tn | bil | thou | grands? | tausend | tsd | million(?:en|es)
         | millones | milliarden? | milliards? | mega | giga | milli | micro
         | plus | minus | negative | times | over | divided | multiplied | doubled | tripled | halved | twice | point
         | squared | cubed | factorial | mod | modulo | remainder | sqrt | pi | base | hex
         | or | oder | ou | nor | not | no | either | maybe | perhaps | probably | possibly | unless | if | else | but
         | vs | versus | wait | wrong | incorrect | false | instead | rather | and\s+(?:an?|some|more)
         | guess | sorry | oops
         | cannot | never | nope | nah | untrue | invalid | mistaken | lie | scratch | ignore | disregard | actually
         | \w+n['\u2019]t | nicht | nein | falsch | falso | faux | root ) \b
      | \b (?-i: (?=[IVX]{2}) X{0,3} (?:IX|IV|V?I{0,3}) ) \b
    """,
    re.VERBOSE | re.IGNORECASE,
)
_UNIT_WORDS = """
a an per each every of total left altogether remaining more fewer less done final that to th st nd rd
usd eur gbp jpy cny rmb inr cad aud chf rs sek nok dkk kr zł pln krw dollar euro pound cent penny pence rupee yen yuan
ruble руб рубль рубля рублей krona krone franc won peso
percent pct percentage degree deg celsius fahrenheit kelvin rad radian
mm cm dm km nm in inch foot feet ft yard yd mi mile meter metre kilometer kilometre centimeter centimetre millimeter
millimetre sq square cubic acre hectare ha
mg kg lb lbs oz ounce gram gramme kilogram ton tonne t
ml cl dl liter litre gallon gal cup pint quart teaspoon tablespoon tsp tbsp cc
ms sec second min minute h hr hrs hour day week month year yr am pm
kmh mph kph rpm bps kb mb gb tb byte bit kw kwh mw watt volt amp ampere ohm joule newton pascal hertz hz khz mhz ghz
kj kn kpa mol cal kcal calorie bar atm dpi px pixel
people person men women man woman child children teeth geese mice fish sheep deer dice oxen cattle police staff
rice water flour milk sugar money apiece
pair set unit piece item point apple egg book page step way time
"""  # noqa: RUF001 - the letters are meant
_UNITS = frozenset(_UNIT_WORDS.split())
_MORE_THAN_ONE = re.compile(r"(?i:[a-z]{3,}s)\Z")
_CJK = re.compile("k?[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")
_NO_CJK = re.compile(
    "[十百千万萬亿億京십백천만억]|조(?!각)"  # powers of ten
    "|半|반|割|ダース|打|(?:キロ|ミリ)(?![グメリワ])|メガ|ギガ|ミリオン|分之|分の|분의"  # parts and other scales
    "|成|다스"  # and Korea's dozen
    "|以[上下内內]|未[満满滿]|左右|[余約约強弱多几幾超]|[前上][後后下]"
    "|ほど|[くぐ]らい|이상|이하|미만|초과|정도|가량"  # about, at most
    "|[減减乘乗除負负]|加(?![仑侖])|[不非没沒错錯误誤違否謊谎嘘]|거짓|오답|ない|なし|아[니님]|없|틀"  # not, wrong
    "|[或又]|また|もしく|또는|혹은"  # or
)
_NAME_OF_A_NUMBER = re.compile(
    r"""
    (?: \w*il+i?on\w* | \w*zillion\w* | thous\w* | \w+fold | \w*quarters?
      | \w*(?:four|fif|six|seven|eigh|nin|ten|eleven|twelf|teen|tie|hundred|thousand|illion)ths
      | half | halfs | thirds? | basis
      | (?:one|two|three|four|five|seven|eight|nine|ten|eleven|twelve)s | sixes | \w*teens | dozens? | scores
      | (?:twen|thir|for|fif|six|seven|eigh|nine)ties | (?:hecto|kilo|mega|giga|tera|micro|nano)s?
      | lacs | lakhs | arabs | kharabs | \w*googols? | myriads | \w*illiards? | doubles | triples | quadruples
      | milhares | milliers | do[cu]\w*enas | douzaines | cent[eai]+n[ae]s | decenas | dizaines
      | factorials | inverses | negatives | reciprocals | opposites | pluses | minuses
      | wrongs | lies | nots | maybes | falsehoods
      | sans | fails | lacks | exceeds | excludes | equals | differs | disagrees | contradicts | becomes ) \Z
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""In the plural, misspelt, or a part: no unit."""
_CROSSES = frozenset("\u274c\u2717\u2718\u2716\u2715\u274e\U0001f6ab\U0001f44e\U0001f51f\U0001f4af\u2030\u2031")
"""They take a number back, or are another; and per mille, which is no percent."""
_UNIT_LETTERS = frozenset("mgslhLVWANJCFda")
"""Units of one letter, and the article, as in "18 a day"."""
_VARIABLES = re.compile(r"(?=.{1,3}\Z)[ijnt]*[xyzπθλμ][xyzijntπθλμ]*\Z|ij\Z")
"""Not yen, tin or in."""
_CURRENCY_BEFORE = re.compile(rf"[$€£¥₹]|{_CURRENCY}")
_CURRENCY_WORD = re.compile(rf"(?i:dollars?|euros?|pounds?|rupees?|yen|yuan)\b|[$€£¥₹]|{_CURRENCY}\b")
_CURRENCY_IN_MILLIONS = re.compile(rf"(?:{_CURRENCY_WORD.pattern})[^\S\n]*+(?:[mM]{{1,2}}|[bBtT])(?!\w)")
_KILO = re.compile("千(?=[克米瓦卡焦赫])")
_TOKEN = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*+ ?/?>|<\|[^<>|\n]*+\|>")
_COMMAND = re.compile(
    r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|left|right|circ|degree|percent|quad|[%)\],;:!$ \\])"
    r"|o['\u2019]clock|\^\{?+\\circ\}?+"
)
_UNIT_EXPONENT = re.compile(r"(?<=[^\W\d_])\}?+(?:\^\{?[23]\}?|[²³])(?![0-9])|(?:(?<=m)|(?<=ft)|(?<=in))[23](?![0-9])")
_WORD = re.compile(r"[^\W\d_]+")


def number_in(text: str, *, is_done: bool = False) -> Decimal | None:
    """The number that ``text`` begins with, where the rest of its line leaves it as it is.

    Every digit is kept; a fraction has forty more than what it is made of. ``is_done``: work that is left undone is no
    number, neither a division that comes out even nor a count of dozens.
    """
    if plain := _ALONE.match(text):  # as most answers are; the rest finds the same, ten times slower
        return Decimal(plain[1])
    text = _FOREIGN_DIGIT.sub(lambda digit: str(unicodedata.decimal(digit[0])), text.translate(TIDY))
    text = _VULGAR_FRACTION.sub(lambda fraction: " " + unicodedata.normalize("NFKC", fraction[0]), text)
    text = _KILO.sub("k", text)
    if "=" in text:
        text = _without_work(text)
    match = _NUMBER.match(text)
    if match is None:
        return None
    end = match.end()
    scale = _SCALE.match(text, end)
    if scale is not None:
        end = scale.end()
    tail = text[end:].partition("\n")[0]
    if not _is_unit(tail) or (scale is None and _is_money_in_millions(match[0], tail)):
        return None
    try:
        number = _value(match, scale and scale["scale"], is_done)
    except InvalidOperation:  # an exponent beyond any use, no divisor, or not done
        return None
    return number if number.is_finite() else None


def _without_work(text: str) -> str:
    """``18 apples`` of ``2 + 16 = 18 apples``; anything else as it is."""
    line, newline, below = text.lstrip().partition("\n")
    work, _, result = line.rpartition("=")
    return result + newline + below if _OPERATION.search(work) and _WORK.match(work) else text


def _value(match: "re.Match[str]", scale: str | None, is_done: bool) -> Decimal:
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


def _is_unit(tail: str) -> bool:
    """Whether the rest of a line leaves the number before it as it is."""
    if tail[:1] and (unicodedata.category(tail[0]) in ("Mn", "Me") or tail.rstrip() == "-" == tail[0]):
        return False  # struck out, or cut off
    if "~~" in tail or "!!" in tail or tail.strip() == "/" or not _CROSSES.isdisjoint(tail):
        return False
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
    elif first == "in" and len(words) > 1:  # no inches
        is_unit = words[1] in ("total", "all")
    else:
        is_unit = _is_unit_word(first)
    return is_unit and words[-1].lower() != "per" and not _NO_UNIT.search(tail) and not _NO_CJK.search(tail)


def _is_unit_word(word: str) -> bool:
    if _CJK.fullmatch(word):
        return True
    if word == "MM" or _NAME_OF_A_NUMBER.match(word) or _VARIABLES.match(word):
        return False
    return word.lower() in _UNITS or _MORE_THAN_ONE.match(word) is not None


def _is_money_in_millions(number: str, tail: str) -> bool:
    """Whether it is written as in "$18m", which is no length, or "18 USD M"."""
    if _CURRENCY_IN_MILLIONS.search(tail):
        return True
    if re.match(r"[^\S\n]*+[mM]{1,2}(?![^\W\d_])", tail) is None:
        return False
    if (number + tail).count("$") % 2 == 0:  # LaTeX
        number, tail = number.replace("$", ""), tail.replace("$", "")
    return bool(_CURRENCY_BEFORE.search(number) or _CURRENCY_WORD.search(tail))
