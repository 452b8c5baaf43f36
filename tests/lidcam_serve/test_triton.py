"""Model repositories: the configuration in Triton's own protobufs, and the Python backend in a stand-in for Triton."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import artifacts
import numpy as np
import onnxruntime
import pytest
from servers import ROOT, png

import lidcam_rt
from lidcam_rt.errors import InputError, OutputError
from lidcam_serve.triton.repository import RepositoryOptions, write_repository


@pytest.fixture
def made(tmp_path, model) -> Path:
    write_repository(model, tmp_path / "repository", RepositoryOptions(max_batch=4))
    return tmp_path / "repository"


def config(folder: Path):
    protobufs = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient is not installed")
    from google.protobuf import text_format

    return text_format.Parse((folder / "config.pbtxt").read_text(), protobufs.ModelConfig())


def stand_in(repository: Path) -> ModuleType:
    """`triton_python_backend_utils`, whose server is ONNX Runtime on the repository's network."""
    module = ModuleType("triton_python_backend_utils")

    class Tensor:
        def __init__(self, name, array):
            self._name, self._array = name, array

        def name(self):
            return self._name

        def as_numpy(self):
            return self._array

    class TritonError:
        def __init__(self, text):
            self._text = text

        def message(self):
            return self._text

    class InferenceResponse:
        def __init__(self, output_tensors=(), error=None):
            self.tensors, self._error = {tensor.name(): tensor for tensor in output_tensors}, error

        def has_error(self):
            return self._error is not None

        def error(self):
            return self._error

    class InferenceRequest:
        def __init__(self, model_name="", requested_output_names=(), inputs=()):
            self.model, self.names = model_name, list(requested_output_names)
            self.tensors = {tensor.name(): tensor for tensor in inputs}

        def exec(self):
            path = repository / self.model / "1" / "model.onnx"
            if not path.exists():
                return InferenceResponse(error=TritonError("no such model"))
            session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
            inputs = {name: tensor.as_numpy() for name, tensor in self.tensors.items()}
            return InferenceResponse(list(map(Tensor, self.names, session.run(self.names, inputs))))

    def get(holder, name):
        return holder.tensors.get(name)

    for value in (Tensor, TritonError, InferenceResponse, InferenceRequest):
        setattr(module, value.__name__, value)
    module.get_input_tensor_by_name = module.get_output_tensor_by_name = get
    return module


@pytest.fixture
def triton(monkeypatch):
    """Starts the Python backend of a repository; gives what calls it, and the stand-in."""

    def start(repository: Path, name: str):
        utils = stand_in(repository)
        monkeypatch.setitem(sys.modules, "triton_python_backend_utils", utils)
        path = repository / name / "1" / "model.py"
        spec = importlib.util.spec_from_file_location("model_of_triton", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        running = module.TritonPythonModel()
        running.initialize({})

        def call(*pictures: bytes, labels=None):
            def request(data):
                tensors = [utils.Tensor("picture", np.array([data], object))]
                if labels is not None:
                    tensors.append(utils.Tensor("labels", np.array(labels)))
                return utils.InferenceRequest(inputs=tensors)

            return running.execute([request(data) for data in pictures])

        return call

    return start


def test_tritons_protobufs_read_the_configuration(made, model):
    network, pictures = config(made / "tiny"), config(made / "tiny_pictures")
    session = onnxruntime.InferenceSession(made / "tiny" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    assert (network.name, network.backend, network.max_batch_size) == ("tiny", "onnxruntime", 4)
    for ours, theirs in ((network.input, session.get_inputs()), (network.output, session.get_outputs())):
        assert {entry.name for entry in ours} == {entry.name for entry in theirs}
        for entry in theirs:
            (side,) = [tensor for tensor in ours if tensor.name == entry.name]
            kinds = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32", "tensor(int64)": "TYPE_INT64"}
            assert (
                type(side).DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number[side.data_type].name
                == (kinds[entry.type])
            )
            assert len(side.dims) == len(entry.shape) - 1
            assert all(a == b or not isinstance(b, int) for a, b in zip(side.dims, entry.shape[1:], strict=True))
    assert network.dynamic_batching.default_queue_policy.max_queue_size == 32
    assert [entry.batch_size for entry in network.model_warmup] == [1, 4]
    assert set(network.model_warmup[0].inputs) == {"image", "labels"}
    assert (pictures.backend, pictures.max_batch_size) == ("python", 0)
    assert [entry.optional for entry in pictures.input] == [False, True]


def test_the_warm_up_requests_run(made):
    """Each declared warm-up, made as Triton makes it, goes through the network."""
    session = onnxruntime.InferenceSession(made / "tiny" / "1" / "model.onnx", providers=["CPUExecutionProvider"])
    dtypes = {2: np.uint8, 9: np.int64, 11: np.float32}
    for warm in config(made / "tiny").model_warmup:
        inputs = {
            name: np.zeros([warm.batch_size, *entry.dims], dtypes[entry.data_type])
            for name, entry in warm.inputs.items()
        }
        assert len(session.run(["logits"], inputs)[0]) == warm.batch_size


@pytest.mark.parametrize("refine", [None, "psa"])
def test_the_python_backend_gives_what_the_localizer_gives(tmp_path, model, localizer, triton, refine):
    write_repository(model, tmp_path / "r", RepositoryOptions(name="m", refine=refine))
    call = triton(tmp_path / "r", "m_pictures")
    for colour in artifacts.CLASSES:
        (answer,) = call(png(colour))
        expected = localizer(png(colour), refine=refine)
        values = {name: tensor.as_numpy() for name, tensor in answer.tensors.items()}
        assert values["class_name"].tolist() == [colour.encode()] and tuple(values["box"][0]) == expected.box
        assert np.array_equal(values["mask"][0], expected.mask) and values["threshold"][0] == expected.threshold
        told = {entry.name: len(entry.dims) for entry in config(tmp_path / "r" / "m_pictures").output}
        assert {name: value.ndim for name, value in values.items()} == told


def test_a_bad_picture_is_its_own_error(made, triton):
    good, bad, labelled = triton(made, "tiny_pictures")(png(), b"x", png())
    assert not good.has_error() and not labelled.has_error()
    assert bad.has_error() and "not a picture" in bad.error().message()
    (other,) = triton(made, "tiny_pictures")(png("red"), labels=[2, 1])
    assert other.tensors["class_name"].as_numpy().tolist() == [b"blue", b"green"]
    (wrong,) = triton(made, "tiny_pictures")(png(), labels=[9])
    assert "out of range" in wrong.error().message()


def test_a_network_that_fails_is_said_without_its_text(made, triton):
    call = triton(made, "tiny_pictures")
    (made / "tiny" / "1" / "model.onnx").unlink()
    (answer,) = call(png())
    assert answer.error().message() == "the network failed"


@pytest.mark.parametrize("gpu", [False, True])
def test_kubernetes_takes_its_example(tmp_path, model, gpu):
    """By the schema of the newest version, in which no field is unknown."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate")
    yaml = pytest.importorskip("yaml")
    write_repository(model, tmp_path / "r", RepositoryOptions(gpu=gpu))
    version = ".".join(kubernetes_validate.latest_version().split(".")[:2])
    documents = list(yaml.safe_load_all((tmp_path / "r" / "kubernetes.yaml").read_text()))
    for document in documents:
        kubernetes_validate.validate(document, version, strict=True)
    documents[0]["spec"]["template"]["spec"]["containers"][0]["port"] = 8000
    with pytest.raises(kubernetes_validate.ValidationError, match="port"):
        kubernetes_validate.validate(documents[0], version, strict=True)


def test_the_examples_are_yaml_of_their_kinds(tmp_path, model):
    yaml = pytest.importorskip("yaml", reason="pyyaml is not installed")
    write_repository(model, tmp_path / "r", RepositoryOptions(name="My_model.v2", gpu=True))
    (kserve,) = yaml.safe_load_all((tmp_path / "r" / "kserve.yaml").read_text())
    deployment, service = yaml.safe_load_all((tmp_path / "r" / "kubernetes.yaml").read_text())
    assert kserve["kind"] == "InferenceService" and kserve["spec"]["predictor"]["triton"]["protocolVersion"] == "v2"
    assert kserve["metadata"]["name"] == deployment["metadata"]["name"] == "my-model-v2"
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    ports = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    write_repository(model, tmp_path / "c", RepositoryOptions())
    assert not any("nvidia" in (tmp_path / "c" / name).read_text() for name in ("kserve.yaml", "kubernetes.yaml"))
    assert "@" not in (tmp_path / "r" / "README.md").read_text()


def test_what_is_refused_leaves_nothing(tmp_path, model):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "x").touch()
    with pytest.raises(OutputError, match="already exists"):
        write_repository(model, taken, RepositoryOptions())
    with pytest.raises(InputError, match="absolute path"):
        write_repository(model, tmp_path / "r", RepositoryOptions(ops_library='x"'))
    with pytest.raises(InputError, match="use up to 128 letters"):
        write_repository(model, tmp_path / "r", RepositoryOptions(name="../x"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


@pytest.mark.slow
def test_the_operator_library_and_the_command(tmp_path, model):
    command = [sys.executable, "-c", "from lidcam_cli.main import main; main()", "export-triton", str(model)]
    more = ["-o", str(tmp_path / "r"), "--ops-library", "/opt/liblidcam_ops.so", "--name", "m"]
    done = subprocess.run([*command, *more], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert config(tmp_path / "r" / "m").model_operations.op_library_filename == ["/opt/liblidcam_ops.so"]
    with lidcam_rt.load(tmp_path / "r" / "m" / "1" / "model.onnx") as opened:
        assert opened(png()).class_name == "red"
