import pytest
from hypothesis import given, strategies as st

from osmosis_ai.rollout.run.policies.expression import Operand, Step, StepResult, find_expression


def written_out(steps: tuple[Step, ...]) -> str:
    """The expression with every operation in parentheses."""
    texts: list[str] = []

    def text_of(operand: Operand) -> str:
        return texts[operand.index] if isinstance(operand, StepResult) else operand

    for step in steps:
        texts.append(f"({text_of(step.left)} {step.operator.value} {text_of(step.right)})")
    return texts[-1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("What is (3 + 4) * 2?", "((3 add 4) multiply 2)"),
        ("Calculate 15 plus 27.", "(15 add 27)"),
        ("What is 7 MINUS 2?", "(7 subtract 2)"),
        ("6 times 7", "(6 multiply 7)"),
        ("8 multiplied by 2 divided by 4", "((8 multiply 2) divide 4)"),
        ("8 \N{MULTIPLICATION SIGN} 2 \N{DIVISION SIGN} 4 \N{MINUS SIGN} 1", "(((8 multiply 2) divide 4) subtract 1)"),
        ("3-4", "(3 subtract 4)"),
        ("3 -4", "(3 subtract 4)"),
        ("12 / -4", "(12 divide -4)"),
        ("2 - -3", "(2 subtract -3)"),
        ("minus 4 plus 3", "(-4 add 3)"),
        ("-(-(3)) + 1", "(3 add 1)"),
        ("-0 + 1", "(0 add 1)"),
        ("-(3 + 4) * 2", "((0 subtract (3 add 4)) multiply 2)"),
        ("--(3 + 4) * 2", "((3 add 4) multiply 2)"),
        ("1,234.50 + .5", "(1234.50 add 0.5)"),
        ("007 + 10", "(7 add 10)"),
        ("1,234,567 * 2", "(1234567 multiply 2)"),
        ("2 + 3 * 4 - 5", "((2 add (3 multiply 4)) subtract 5)"),
        ("What is 3\n+ 4?", "(3 add 4)"),
    ],
)
def test_arithmetic_is_read_with_the_usual_precedence(text: str, expected: str) -> None:
    assert written_out(find_expression(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "**3 + 4**?",
        "*3 + 4*",
        "(3 + 4) = ?",
        "Task 5) (easy) 3 + 4",
        "((3 + 4",
        "3 + 4)) (show your work)",
        "3 + 4 - what is it?",
        "In room 12 we ask: 3 + 4, in 1-2 sentences.",
        "Question 1\n\n3 + 4",
        "Version 2 costs 5 apples; 3 + 4",
    ],
)
def test_an_expression_is_found_in_its_surroundings(text: str) -> None:
    assert written_out(find_expression(text)) == "(3 add 4)"


def test_the_longest_expression_counts_and_on_a_tie_the_first() -> None:
    assert written_out(find_expression("Not 1 + 2 but 3 + 4 + 5")) == "((3 add 4) add 5)"
    assert written_out(find_expression("First 1 + 2, then 3 + 4")) == "(1 add 2)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "How many apples?",
        "Tom has 3 apples and 4 pears.",
        "What is 5?",
        "-(-(3))",
        "2 ** 3 + 4",
        "2 ** -3 + 4",
        "7 // 2 + 1",
        "20 + 50%",
        "2 ^ 3 + 4",
        "2(3 + 4)",
        "(3 + 4)(5 + 6)",
        "1.2.3 + 4",
    ],
)
def test_what_is_no_such_arithmetic_is_left_alone(text: str) -> None:
    assert find_expression(text) == ()


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("(" * 10_000 + "1 + 2" + ")" * 10_000, 1),
        ("(1 + " * 10_000 + "1" + ")" * 10_000, 10_000),
        ("(" * 20_000, 0),
        ("-" * 20_000 + "1 + 1", 1),
        ("1 + " * 10_000 + "1", 10_000),
        ("1 " * 20_000, 0),
        ("1,234" * 10_000, 0),
        ("\n " * 20_000, 0),
        ("1 ** " * 10_000, 0),
        ("9" * 20_000 + " + 1", 1),
    ],
)
def test_hostile_text_is_read_without_recursion(text: str, steps: int) -> None:
    assert len(find_expression(text)) == steps


@given(st.text(alphabet="0123456789.,()+-*/%^ \n=x\N{MULTIPLICATION SIGN}\N{MINUS SIGN}") | st.text())
def test_any_text_gives_steps_that_depend_only_on_earlier_levels(text: str) -> None:
    steps = find_expression(text)
    if not steps:
        return
    levels = [step.level for step in steps]
    assert levels == sorted(levels)
    assert levels.count(levels[-1]) == 1
    used: list[int] = []
    for step in steps:
        below = [operand.index for operand in (step.left, step.right) if isinstance(operand, StepResult)]
        assert step.level == max((levels[index] for index in below), default=-1) + 1
        used += below
    assert sorted(used) == list(range(len(steps) - 1)), "every result but the last is used once"
