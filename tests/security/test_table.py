"""The table of attacks, the tests and the document say the same."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

from security.attacks import ATTACKS, line

_HERE = Path(__file__).parent
_DOCUMENT = (_HERE.parents[1] / "docs" / "SECURITY.md").read_text()


def _tests() -> dict[str, ast.FunctionDef]:
    """Each test of the suite, by path and name."""
    found = {}
    for path in sorted(_HERE.glob("test_*.py")):
        if path.name == Path(__file__).name:
            continue
        for item in ast.parse(path.read_text()).body:
            if isinstance(item, ast.FunctionDef) and item.name.startswith("test_"):
                found[f"security/{path.name}::{item.name}"] = item
    return found


def test_every_attack_has_a_test_and_every_test_an_attack():
    assert sorted(attack.test for attack in ATTACKS) == sorted(_tests())


def test_attacks_have_names_of_their_own():
    assert max(Counter(attack.name for attack in ATTACKS).values()) == 1


def test_every_test_says_what_bound_holds():
    assert not [name for name, test in _tests().items() if not (ast.get_docstring(test) or "").startswith("Bound: ")]


def test_the_document_has_every_row():
    table = _DOCUMENT.partition("\n## Attacks\n")[2].partition("\n## ")[0]
    rows = [text for text in table.splitlines() if "`tests/security/" in text]
    assert sorted(rows) == sorted(map(line, ATTACKS))


def test_the_document_says_which_bounds_do_not_hold_yet():
    names = {attack.test: attack.name for attack in ATTACKS}
    failing = {
        names[name]
        for name, test in _tests().items()
        if any("xfail" in ast.unparse(decorator) for decorator in test.decorator_list)
    }
    _, _, section = _DOCUMENT.partition("## Bounds that do not hold yet")
    section = section.partition("\n## ")[0]
    assert {text[2:].partition(":")[0] for text in section.splitlines() if text.startswith("- ")} == failing
