from __future__ import annotations

import contextlib
import hashlib
import json

import artifacts
import onnx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from json_mutation import ODD, mutations

import lidcam_rt
from lidcam_rt.artifact import DIGEST_KEY, MANIFEST_KEY, Manifest, read_manifest
from lidcam_rt.errors import ArtifactError
from lidcam_rt.protobuf import metadata_props, model_header


def test_reads_what_was_written(model):
    assert read_manifest(model) == artifacts.manifest(top_k=2)


def test_header_agrees_with_onnx(model, tmp_path):
    loaded = onnx.load(model)
    loaded.functions.append(
        onnx.helper.make_function(
            "lidcam",
            "PaS",
            ["x"],
            ["y"],
            [onnx.helper.make_node("Relu", ["x"], ["y"])],
            [onnx.helper.make_opsetid("", 18)],
        )
    )
    loaded.opset_import.append(onnx.helper.make_opsetid("lidcam", 1))
    path = tmp_path / "f.onnx"
    path.write_bytes(loaded.SerializeToString())
    header = model_header(path)
    assert header.ir_version == loaded.ir_version
    assert header.opsets == {entry.domain: entry.version for entry in loaded.opset_import}
    assert header.functions == ("lidcam::PaS",)
    assert header.metadata == {entry.key: entry.value for entry in loaded.metadata_props} == metadata_props(path)


def with_metadata(model, path, entries):
    loaded = onnx.load(model)
    del loaded.metadata_props[:]
    onnx.helper.set_model_props(loaded, entries)
    path.write_bytes(loaded.SerializeToString())
    return path


def test_not_ours(model, tmp_path):
    path = with_metadata(model, tmp_path / "m.onnx", {"author": "someone"})
    with pytest.raises(ArtifactError, match=r"without a lidcam manifest.*lidcam export"):
        lidcam_rt.load(path)


def test_newer_schema_is_told_before_anything_else(model, tmp_path):
    raw = json.loads(read_manifest(model).to_metadata()[MANIFEST_KEY])
    raw |= {"schema_version": 99, "unheard_of": 1, "package_version": "7.5"}
    path = with_metadata(model, tmp_path / "m.onnx", {MANIFEST_KEY: json.dumps(raw)})
    with pytest.raises(ArtifactError, match=r"schema 99.*pip install -U lidcam-rt.*7\.5"):
        lidcam_rt.load(path)


def test_tampered_manifest(model, tmp_path):
    entries = read_manifest(model).to_metadata()
    entries[MANIFEST_KEY] = entries[MANIFEST_KEY].replace('"red"', '"tea"')
    with pytest.raises(ArtifactError, match="was changed after export"):
        lidcam_rt.load(with_metadata(model, tmp_path / "m.onnx", entries))
    entries.pop(DIGEST_KEY)
    with pytest.raises(ArtifactError, match="was changed after export"):
        lidcam_rt.load(with_metadata(model, tmp_path / "m.onnx", entries))


RAW = json.loads(artifacts.manifest().to_metadata()[MANIFEST_KEY])


def holds(kept, given):
    """Whether what was given was kept; what was left out has its default; a number is read as a double."""
    if isinstance(given, dict):
        return all(value is None or holds(kept[key], value) for key, value in given.items())
    if isinstance(given, list) and isinstance(kept, list):
        return len(kept) == len(given) and all(map(holds, kept, given))
    if isinstance(kept, float) and type(given) is int:
        return kept == float(given)
    return kept == given


def parsed(text):
    data = text.encode("utf-8", "surrogatepass")
    return Manifest.from_metadata({MANIFEST_KEY: text, DIGEST_KEY: hashlib.sha256(data).hexdigest()}, "m.onnx")


@pytest.mark.parametrize("text", ODD, ids=lambda text: text[:12])
def test_manifest_of_another_form(text):
    with pytest.raises(ArtifactError, match=r"m\.onnx: its (lidcam )?manifest"):
        parsed(text)


@settings(max_examples=400, deadline=None)
@example(json.dumps(RAW | {"input": RAW["input"] | {"mean": [2**53 + 1, 127.5, 127.5]}}))  # which no double is
@given(mutations(RAW))
def test_a_changed_manifest_is_valid_or_refused(text):
    """And what is valid is kept as it was: no value was read as another type."""
    try:
        manifest = parsed(text)
    except ArtifactError as error:
        assert str(error).startswith("m.onnx: ")
    else:
        assert holds(json.loads(manifest.to_metadata()[MANIFEST_KEY]), json.loads(text))


@pytest.mark.parametrize("version", ["2", "1", 2.0, 1.0, True, None, -1, 0, [1]])
def test_versions_that_are_none(version):
    raw = json.loads(artifacts.manifest().to_metadata()[MANIFEST_KEY]) | {"schema_version": version}
    with pytest.raises(ArtifactError, match="schema"):
        parsed(json.dumps(raw))


def test_files_that_are_none(tmp_path, model):
    (tmp_path / "empty.onnx").touch()
    (tmp_path / "text.onnx").write_text("this is no model")
    (tmp_path / "cut.onnx").write_bytes(model.read_bytes()[:1500])
    for name, says in (
        ("empty.onnx", "empty"),
        ("text.onnx", "not an ONNX model"),
        ("cut.onnx", "truncated"),
        ("none.onnx", "no such file"),
        (".", "is a folder"),
        ("a\0b.onnx", "not a path"),
        ("a\0b.engine", "cannot be read"),
    ):
        with pytest.raises(ArtifactError, match=says):
            lidcam_rt.load(tmp_path / name)


def test_a_graph_that_the_engine_refuses(model, tmp_path):
    loaded = onnx.load(model)
    loaded.graph.node[3].op_type = "NoSuchOperator"
    path = tmp_path / "m.onnx"
    path.write_bytes(loaded.SerializeToString())
    with pytest.raises(ArtifactError, match=r"onnxruntime .* refuses it"):
        lidcam_rt.load(path)
    loaded = onnx.load(model)
    loaded.ir_version = 200
    path.write_bytes(loaded.SerializeToString())
    with pytest.raises(ArtifactError, match="pip install -U onnxruntime"):
        lidcam_rt.load(path)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_at_any_place_is_an_artifact_error_or_harmless(model, tmp_path_factory, data):
    whole = bytearray(model.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at : at + 8] = data.draw(st.binary(min_size=1, max_size=8))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))] if data.draw(st.booleans()) else whole)
    try:
        model_header(path)
        read_manifest(path)
    except ArtifactError as error:
        assert str(path) in str(error)


def _number(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize("length", [2**31, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("inside", [False, True])
def test_lengths_beyond_the_file_are_refused(tmp_path, length, inside):
    """At the top, and within an entry of the metadata."""
    part = b"\x0a" + _number(length) + b"key"
    data = b"\x72" + _number(len(part)) + part if inside else b"\x72" + _number(length) + b"key"
    (tmp_path / "a.onnx").write_bytes(b"\x08\x08" + data)
    with pytest.raises(ArtifactError, match="truncated"):
        metadata_props(tmp_path / "a.onnx")


@given(st.binary(max_size=200))
def test_any_bytes_are_a_header_or_an_artifact_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(b"\x3a\x00" + data)
    with contextlib.suppress(ArtifactError):
        header = model_header(path)
        assert all(isinstance(key, str) and isinstance(value, str) for key, value in header.metadata.items())


def test_metadata_in_text_that_is_not_utf8(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"\x3a\x00\x72\x04\x0a\x02\xff\xfe")
    with pytest.raises(ArtifactError, match="damaged"):
        metadata_props(tmp_path / "a.onnx")
    with pytest.raises(ArtifactError, match=r"not a path|no such file"):
        metadata_props("a\0.onnx")
