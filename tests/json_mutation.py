"""Changed JSON texts: of the right structure with one wrong value, and of no structure at all."""

from __future__ import annotations

import copy
import json

from hypothesis import strategies as st

#: Texts that are no object, or too deep, or hold what JSON parsers take and others do not.
ODD = [
    "", "{", "[]", "null", "3", '"x"', "[" * 100_000, '{"a":' * 100_000, "\x00", "{}", "NaN",
    '{"schema_version": 1e400}',
    '{"schema_version": ' + "9" * 5000 + "}", '{"\\ud800": 1}', "{'a': 1}", "\ufeff{}",
]  # fmt: skip

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8), st.just("\ud800"),
    st.lists(st.integers(-3, 3), max_size=4), st.dictionaries(st.text(max_size=4), st.integers(), max_size=2),
    st.sampled_from(["2", 2.0, "1", 1.0, -1, 0, "../x", "\x1b[31m", "a\x00b"]),
)  # fmt: skip


def _places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*path, key))


@st.composite
def mutations(draw, raw):
    """The JSON value `raw` with one value replaced, removed or added, as text."""
    changed = copy.deepcopy(raw)
    places = [path for path in _places(changed) if path]
    path = places[draw(st.integers(0, len(places) - 1))]
    holder = changed
    for key in path[:-1]:
        holder = holder[key]
    how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    if how == "remove":
        del holder[path[-1]]
    elif how == "add" and isinstance(holder, dict):
        holder[draw(st.text(max_size=5))] = draw(VALUES)
    else:
        holder[path[-1]] = draw(VALUES)
    return json.dumps(changed)
