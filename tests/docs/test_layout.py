"""The layout of the tests themselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_modules_that_tests_share_have_names_of_their_own():
    """Folders of tests are on sys.path side by side: the second `node.py` would be the first one's."""
    names = Counter(path.name for path in TESTS.rglob("*.py") if path.name not in ("conftest.py", "__init__.py"))
    shared = {name: count for name, count in names.items() if count > 1 and not name.startswith("test_")}
    assert shared == {}
