"""What makes a number none: behind it another, an operation, more to come, or what takes it back."""

import re
import unicodedata

from osmosis_ai.rollout.core.numbers.notation import CURRENCY

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
_VARIABLES = re.compile(r"(?=.{1,3}\Z)[ijnt]*[xyzπθλμ][xyzijntπθλμ]*\Z|ij\Z")
"""Not yen, tin or in."""
_CURRENCY_BEFORE = re.compile(rf"[$€£¥₹]|{CURRENCY}")
_CURRENCY_WORD = re.compile(rf"(?i:dollars?|euros?|pounds?|rupees?|yen|yuan)\b|[$€£¥₹]|{CURRENCY}\b")
_CURRENCY_IN_MILLIONS = re.compile(rf"(?:{_CURRENCY_WORD.pattern})[^\S\n]*+(?:[mM]{{1,2}}|[bBtT])(?!\w)")


def is_struck_out(tail: str) -> bool:
    """Whether the number is crossed out, or the text cut off or shouting behind it."""
    if tail[:1] and (unicodedata.category(tail[0]) in ("Mn", "Me") or tail.rstrip() == "-" == tail[0]):
        return True
    return "~~" in tail or "!!" in tail or tail.strip() == "/" or not _CROSSES.isdisjoint(tail)


def goes_on(tail: str) -> bool:
    """Whether ``tail`` has another number, or something to work out."""
    return any(
        character in "\\^"
        or character.isnumeric()
        or (unicodedata.category(character) == "Sm" and character not in "|~")
        for character in set(tail)
    )


def is_taken_back(tail: str) -> bool:
    """Whether a word of ``tail`` is a number, an operation or an alternative, or takes the number back."""
    return bool(_NO_UNIT.search(tail) or _NO_CJK.search(tail))


def is_named_number(word: str) -> bool:
    """Whether ``word``, which looks like a unit, is a number by name, or a variable."""
    return word == "MM" or bool(_NAME_OF_A_NUMBER.match(word) or _VARIABLES.match(word))


def is_money_in_millions(number: str, tail: str) -> bool:
    """Whether it is written as in "$18m", which is no length, or "18 USD M"."""
    if _CURRENCY_IN_MILLIONS.search(tail):
        return True
    if re.match(r"[^\S\n]*+[mM]{1,2}(?![^\W\d_])", tail) is None:
        return False
    if (number + tail).count("$") % 2 == 0:  # LaTeX
        number, tail = number.replace("$", ""), tail.replace("$", "")
    return bool(_CURRENCY_BEFORE.search(number) or _CURRENCY_WORD.search(tail))
