from __future__ import annotations

import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lidcam_cli.runs import RunFolder, differences
from lidcam_rt.errors import OutputError


def test_one_process_at_a_time(tmp_path):
    with RunFolder(tmp_path, {}), pytest.raises(OutputError, match="another process is writing into it"), RunFolder(
        tmp_path, {}
    ):
        pass
    with RunFolder(tmp_path, {}):
        pass


def test_a_torn_line_and_leftovers_are_removed(tmp_path):
    with RunFolder(tmp_path, {}) as run:
        run.add({"image": "a.jpg"})
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"image": "b.j')
    (tmp_path / ".lidcam-xyz.part").touch()
    with RunFolder(tmp_path, {}) as run:
        assert not (tmp_path / ".lidcam-xyz.part").exists()
        assert [record["image"] for record in run.records()] == ["a.jpg"]
        assert (tmp_path / "results.jsonl").read_bytes() == b'{"image": "a.jpg"}\n'
        run.add({"image": "c.jpg"})
        assert [record["image"] for record in run.records()] == ["a.jpg", "c.jpg"]


def test_full_disk_leaves_no_part_of_a_line(tmp_path, monkeypatch):
    with RunFolder(tmp_path, {}) as run:
        run.add({"image": "a.jpg"})
        real = os.write
        monkeypatch.setattr(os, "write", lambda handle, data: real(handle, data[:9]))
        with pytest.raises(OutputError, match=r"No space left.*resumes where it stopped"):
            run.add({"image": "b.jpg"})
        monkeypatch.undo()
        assert (tmp_path / "results.jsonl").read_bytes().endswith(b"}\n")
        run.add({"image": "c.jpg"})
        assert [record["image"] for record in run.records()] == ["a.jpg", "c.jpg"]


def test_records_after_a_count_are_forgotten(tmp_path):
    with RunFolder(tmp_path, {}) as run:
        for i in range(5):
            run.add({"i": i})
        run.keep(2)
        run.add({"i": "new"})
        assert [record["i"] for record in run.records()] == [0, 1, "new"]
        with pytest.raises(OutputError, match="has 3 records, but 4 were written: it was damaged"):
            run.keep(4)


@pytest.mark.parametrize(
    "line", [b"nothing", b"[1]", b"3", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"NaN", b""]
)
def test_damaged_lines_are_left_out(tmp_path, line):
    with RunFolder(tmp_path, {}) as run:
        run.add({"image": "a.jpg"})
    with (tmp_path / "results.jsonl").open("ab") as file:
        file.write(line + b"\n")
    with RunFolder(tmp_path, {}) as run:
        assert list(run.records()) == [{"image": "a.jpg"}]


@pytest.mark.parametrize("text", [b"", b"nothing", b"[]", b"\xff", b"[" * 100_000])
def test_a_damaged_identity_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_bytes(text)
    with pytest.raises(OutputError, match=r"run\.json: does not describe a run"), RunFolder(tmp_path, {}):
        pass


def test_another_identity_is_refused_and_named(tmp_path):
    before = {"run": "a", "model": "0" * 64, "file": "m.onnx", "options": {"top_k": 1, "crf": None}}
    with RunFolder(tmp_path, before, ignored=("file",)):
        pass
    with RunFolder(tmp_path, before | {"file": "renamed.onnx"}, ignored=("file",)):
        pass
    now = before | {"options": {"top_k": 2, "crf": {"preset": "psa", "x": 1}}}
    says = r"holds another run \(m\.onnx\): options top_k was 1, is 2; options crf was none, is psa\. Use the same"
    with pytest.raises(OutputError, match=says), RunFolder(tmp_path, now, ignored=("file",)):
        pass
    (tmp_path / "run.json").unlink()
    with pytest.raises(OutputError, match="already holds other results"), RunFolder(tmp_path, before):
        pass


_names = st.text(max_size=2)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | _names,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(_names, v, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(_names, _json, max_size=4), st.dictionaries(_names, _json, max_size=4))
def test_differences_are_none_for_equal_values_only(before, now):
    def same(a, b):  # a name that is missing counts as null
        if isinstance(a, dict) and isinstance(b, dict):
            return all(same(a.get(key), b.get(key)) for key in a.keys() | b.keys())
        return a == b

    assert (differences(before, now) == []) == same(before, now)
    assert differences(before, json.loads(json.dumps(before))) == []
