"""The Python blocks of docs/operator.md, in order, up to its page on CUDA."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "operator.md"


@pytest.mark.skipif(not PAGE.exists(), reason="the documentation is not here")
def test_the_blocks_run():
    text = PAGE.read_text(encoding="utf-8").split("\n## CUDA")[0]
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    assert len(blocks) >= 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
