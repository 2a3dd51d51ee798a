"""Every row of `test_data.jsonl` asks for one expression, and its ground truth is the value of that expression."""

import ast
import json
import re
from fractions import Fraction
from pathlib import Path

import pytest

ROWS = [
    json.loads(line)
    for line in (Path(__file__).parents[1] / "test_data.jsonl").read_text(encoding="utf-8").splitlines()
]
SYMBOLS = {
    "plus": "+",
    "minus": "-",
    "times": "*",
    "multiplied by": "*",
    "divided by": "/",
    "\N{MULTIPLICATION SIGN}": "*",
    "\N{DIVISION SIGN}": "/",
}
OPERATIONS = {
    ast.Add: Fraction.__add__,
    ast.Sub: Fraction.__sub__,
    ast.Mult: Fraction.__mul__,
    ast.Div: Fraction.__truediv__,
}


def expressions_in(prompt: str) -> list[str]:
    for written, symbol in SYMBOLS.items():
        prompt = prompt.replace(written, symbol)
    prompt = re.sub(r"(?<=\d),(?=\d{3})", "", prompt)
    runs = re.findall(r"[-+*/().\d][-+*/(). \d]*", prompt)
    return [run.strip(" .") for run in runs if re.search(r"\d", run)]


def value_of(expression: str) -> Fraction:
    def value(node: ast.expr) -> Fraction:
        match node:
            case ast.Constant():
                return Fraction(ast.get_source_segment(expression, node) or "")
            case ast.UnaryOp(op=ast.USub()):
                return -value(node.operand)
            case ast.BinOp():
                return OPERATIONS[type(node.op)](value(node.left), value(node.right))
        raise AssertionError(f"{expression} is no arithmetic")

    return value(ast.parse(expression, mode="eval").body)


def test_there_are_enough_rows_and_none_twice() -> None:
    assert len(ROWS) >= 24
    assert len({row["user_prompt"] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["user_prompt"])
def test_a_row_asks_for_one_expression_and_knows_its_value(row: dict[str, str]) -> None:
    assert list(row) == ["system_prompt", "user_prompt", "ground_truth"]
    assert all(isinstance(text, str) and text.strip() for text in row.values())
    assert "#### N" in row["system_prompt"]
    assert not re.search(r"\d", row["system_prompt"])
    [expression] = expressions_in(row["user_prompt"])
    assert Fraction(row["ground_truth"]) == value_of(expression)


def test_the_rows_range_from_one_step_to_nested_expressions_negatives_and_decimals() -> None:
    expressions = [expression for row in ROWS for expression in expressions_in(row["user_prompt"])]
    assert any(len(re.findall(r"[-+*/]", expression)) == 1 for expression in expressions)
    assert any(expression.count("(") >= 3 for expression in expressions)
    assert any(expression.startswith("-") for expression in expressions)
    assert any("." in expression for expression in expressions)
    assert any(row["ground_truth"].startswith("-") for row in ROWS)
    assert any("." in row["ground_truth"] for row in ROWS)
