"""Files of tensors and plain values: what is written comes back, and what is read cannot run."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lidcam_training.state import PlainCheckpoints, read_progress
from lidcam_training.tensor_file import _digest, read_tensor_file, read_values, save_tensors, write_tensor_file

from lidcam_rt.errors import DataError, LidcamError, OutputError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
KEYS = st.integers() | TEXT | st.tuples(st.integers(), st.integers())
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_plain_values_come_back_with_their_types(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("f") / "f.safetensors"
    write_tensor_file(path, value)
    assert repr(read_tensor_file(path)) == repr(value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3, 4, 5), (4, 3, 1, 1)])
def test_tensors_come_back(tmp_path, dtype, shape):
    given_ = (torch.rand(shape) * 200).to(dtype)
    value = {"a": [given_], 7: (given_.clone(), {"lr": 0.1 + 0.2, "nan": float("inf")})}
    write_tensor_file(tmp_path / "f", value)
    read = read_tensor_file(tmp_path / "f")
    assert read["a"][0].dtype == dtype
    assert torch.equal(read["a"][0], given_)
    assert torch.equal(read[7][0], given_)
    assert read[7][1] == value[7][1]


def test_the_memory_layout_comes_back(tmp_path):
    image = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    write_tensor_file(tmp_path / "f", {"x": image, "view": image[:, 1:], "turned": torch.rand(3, 4).T})
    read = read_tensor_file(tmp_path / "f")
    assert read["x"].stride() == image.stride()
    assert torch.equal(read["x"], image)
    assert torch.equal(read["view"], image[:, 1:])


def test_the_state_of_an_optimizer_comes_back(tmp_path):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.rand(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "model": model.state_dict()}
    PlainCheckpoints().save_checkpoint(state, tmp_path / "f")
    read = PlainCheckpoints().load_checkpoint(tmp_path / "f")
    assert str(read["optimizer"]) == str(optimizer.state_dict())
    assert str(read["model"]) == str(dict(model.state_dict()))


@pytest.mark.slow
def test_the_same_value_gives_the_same_bytes_in_every_process(tmp_path):
    code = (
        "import sys, torch; from pathlib import Path; from lidcam_training.tensor_file import write_tensor_file; "
        "write_tensor_file(Path(sys.argv[1]), {'a': torch.arange(3), 'b': [1, 'x'], 7: torch.zeros(2)})"
    )
    for number in range(4):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / str(number))], check=True)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_other_objects_are_refused(tmp_path):
    with pytest.raises(TypeError, match="PosixPath"):
        write_tensor_file(tmp_path / "f", {"a": Path()})
    assert not list(tmp_path.iterdir())


class Planted:
    def __init__(self, place):
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch, old", "array"])
def test_code_that_somebody_planted_does_not_run(tmp_path, kind):
    path, mark = tmp_path / "state.safetensors", tmp_path / "mark"
    planted = {"callbacks": {"_Keeper": Planted(mark)}}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(planted))
    elif kind == "array":
        import numpy as np

        with path.open("wb") as file:
            np.save(file, np.array([planted], dtype=object), allow_pickle=True)
    else:
        torch.save(planted, path, _use_new_zipfile_serialization=kind == "torch")
    for read in (read_tensor_file, read_values, PlainCheckpoints().load_checkpoint, lambda p: read_progress(p, "_K")):
        with pytest.raises(DataError, match="cannot be read"):
            read(path)
    assert not mark.exists()


def test_a_changed_file_is_refused(tmp_path):
    write_tensor_file(tmp_path / "f", {"w": torch.arange(100.0), "epoch": 3})
    good = (tmp_path / "f").read_bytes()
    for place in range(0, len(good), 7):
        (tmp_path / "f").write_bytes(good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :])
        with pytest.raises(DataError, match="cannot be read"):
            read_tensor_file(tmp_path / "f")
    (tmp_path / "f").write_bytes(good[:-5])
    with pytest.raises(DataError, match="cannot be read"):
        read_tensor_file(tmp_path / "f")


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000, '{"dict":' * 990 + "1" + "}" * 990, "3", '{"tensor":"9"}', '{"tensor":["0"]}', '{"dict":[1]}',
        '{"dict":[[{"dict":[]},1]]}', '{"set":[]}', '{"tuple":3}', "{}", '{"tuple":[],"dict":[]}', '{"dict":[["a",2]]}',
        '{"dict":[["callbacks",{"dict":[["_Keeper",{"dict":[["resume",[0,-1]],["finished",true]]}]]}]]}',
        '{"dict":[["callbacks",3]]}',
    ],
)  # fmt: skip
def test_values_of_somebody_else_give_an_error_of_ours(tmp_path, text):
    tensors = {"0": torch.zeros(2)}
    try:
        digest = _digest(json.loads(text), tensors)
    except RecursionError:
        digest = ""
    save_tensors(tensors, tmp_path / "f", {"lidcam": f'{{"sha256":"{digest}","value":{text}}}'})
    with pytest.raises(LidcamError, match="remove it to begin"):
        read_progress(tmp_path / "f", "_Keeper")
    for read in (read_tensor_file, PlainCheckpoints().load_checkpoint):
        try:
            read(tmp_path / "f")
        except LidcamError:
            continue


def test_files_without_our_header_are_refused(tmp_path):
    save_tensors({"a": torch.zeros(1)}, tmp_path / "f")
    with pytest.raises(DataError, match="not a lidcam file"):
        read_tensor_file(tmp_path / "f")
    with pytest.raises(DataError, match="cannot be read"):
        read_tensor_file(tmp_path / "missing")
    (tmp_path / "j").write_text(json.dumps({"a": 1}))
    with pytest.raises(DataError, match="cannot be read"):
        read_progress(tmp_path / "j", "_Keeper")


def test_a_place_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        save_tensors({"a": torch.zeros(1)}, tmp_path / "nowhere" / "f")
