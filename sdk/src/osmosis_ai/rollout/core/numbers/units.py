"""Units: the words that may follow a number and leave it as it is.

The first is one of ``_UNIT_WORDS``, an English plural ("apples"), or Chinese, Japanese or Korean; none is refused
(``refused``). A unit may have the exponent 2 or 3, and a percent sign is one: 18% is 18.
"""

import re

from osmosis_ai.rollout.core.numbers.refused import goes_on, is_named_number, is_struck_out, is_taken_back

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
_UNIT_LETTERS = frozenset("mgslhLVWANJCFda")
"""Units of one letter, and the article, as in "18 a day"."""
_TOKEN = re.compile(r"</?[a-zA-Z][a-zA-Z0-9]*+ ?/?>|<\|[^<>|\n]*+\|>")
_COMMAND = re.compile(
    r"\\(?:text|textbf|textrm|mathrm|mathbf|mbox|left|right|circ|degree|percent|quad|[%)\],;:!$ \\])"
    r"|o['\u2019]clock|\^\{?+\\circ\}?+"
)
_UNIT_EXPONENT = re.compile(r"(?<=[^\W\d_])\}?+(?:\^\{?[23]\}?|[²³])(?![0-9])|(?:(?<=m)|(?<=ft)|(?<=in))[23](?![0-9])")
_WORD = re.compile(r"[^\W\d_]+")


def is_unit(tail: str) -> bool:
    """Whether the rest of a line leaves the number before it as it is."""
    if is_struck_out(tail):
        return False
    tail = _UNIT_EXPONENT.sub("", _COMMAND.sub(" ", _TOKEN.sub(" ", tail)))
    if goes_on(tail):
        return False
    words = _WORD.findall(tail)
    if not words:
        return True
    return _begins_with_unit(words, tail) and words[-1].lower() != "per" and not is_taken_back(tail)


def _begins_with_unit(words: list[str], tail: str) -> bool:
    first = words[0]
    if len(first) == 1 and first.isascii():
        return first in _UNIT_LETTERS and not (first == "a" and tail.startswith("a"))
    if first == "in" and len(words) > 1:  # no inches
        return words[1] in ("total", "all")
    if _CJK.fullmatch(first):
        return True
    return not is_named_number(first) and (first.lower() in _UNITS or _MORE_THAN_ONE.match(first) is not None)
