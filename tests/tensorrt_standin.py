"""Stand-ins for TensorRT's modules and CUDA's runtime, for tests on machines without a GPU.

`module(version)` behaves like `tensorrt` as far as `lidcam build` and the backend go: it reads ONNX with the onnx
package, and its engines run the network in ONNX Runtime on the addresses that they are given.
"""

from __future__ import annotations

import ctypes
import enum
import inspect
import json
import threading
import types
import typing
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

_KINDS = {
    TensorProto.FLOAT: "FLOAT", TensorProto.FLOAT16: "HALF", TensorProto.INT64: "INT64", TensorProto.UINT8: "UINT8",
    TensorProto.INT32: "INT32", TensorProto.BOOL: "BOOL",
}  # fmt: skip


def plan_bytes(plan: dict) -> bytes:
    """An "engine": the model in hexadecimal digits, names and layers, as JSON."""
    return json.dumps({**plan, "model": plan["model"].hex()}).encode()


def read_plan(data: bytes) -> dict:
    """What `plan_bytes` was given."""
    plan = json.loads(data)
    return {**plan, "model": bytes.fromhex(plan["model"])}


class DataType(enum.Enum):
    FLOAT, HALF, INT32, INT64, UINT8, BOOL, INT8 = range(7)


class LayerType(enum.Enum):
    CONVOLUTION, DECONVOLUTION, CAST, PLUGIN_V3, OTHER = range(5)


@dataclass
class Tensor:
    name: str
    dtype: DataType
    shape: tuple[int, ...]


@dataclass
class Layer:
    name: str
    type: LayerType
    outputs: list[Tensor]
    precision: DataType | None = None
    output_types: dict[int, DataType] = field(default_factory=dict)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_output(self, index: int) -> Tensor:
        return self.outputs[index]

    def set_output_type(self, index: int, kind: DataType) -> None:
        self.output_types[index] = kind


class Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.inputs: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.layers: list[Layer] = []
        self.model: onnx.ModelProto | None = None
        self.plugins: list[object] = []

    num_inputs = property(lambda self: len(self.inputs))
    num_outputs = property(lambda self: len(self.outputs))
    num_layers = property(lambda self: len(self.layers))

    def get_input(self, index):
        return self.inputs[index]

    def get_output(self, index):
        return self.outputs[index]

    def get_layer(self, index):
        return self.layers[index]

    def add_plugin(self, create):
        inputs, shape_inputs, plugin = create()
        assert all(isinstance(tensor, Tensor) for tensor in inputs) and not shape_inputs
        self.plugins.append(plugin)
        n, k = inputs[0].shape[:2]
        maps = (n, k, *inputs[1].shape[2:])
        outputs = [Tensor(f"p{i}", DataType.FLOAT, shape) for i, shape in enumerate((maps, maps, (n, k)))]
        self.layers.append(Layer("plugin", LayerType.PLUGIN_V3, outputs))
        return self.layers[-1]

    def add_cast(self, tensor, kind):
        self.layers.append(Layer(f"cast {tensor.name}", LayerType.CAST, [Tensor("cast", kind, tensor.shape)]))
        return self.layers[-1]

    def mark_output(self, tensor):
        self.outputs.append(tensor)

    def unmark_output(self, tensor):
        self.outputs = [entry for entry in self.outputs if entry is not tensor]


class Config:
    def __init__(self) -> None:
        self.flags: set[str] = {"TF32"}
        self.profiles: list[dict] = []
        self.limits: dict = {}
        self.profiling_verbosity = None

    def set_flag(self, flag):
        self.flags.add(flag.name)

    def clear_flag(self, flag):
        self.flags.discard(flag.name)

    def add_optimization_profile(self, profile):
        self.profiles.append(profile.shapes)

    def set_memory_pool_limit(self, pool, size):
        self.limits[pool] = size


class Profile:
    def __init__(self) -> None:
        self.shapes: dict = {}

    def set_shape(self, name, low, middle, high):
        self.shapes[name] = (low, middle, high)


def module(version: str = "11.4.0.106", *, name: str = "tensorrt", plugin: bool = False) -> types.ModuleType:
    """A stand-in of one version; with `plugin`, it has the submodule `plugin`.

    Its attribute `log` is a list of what happened: networks, configurations, contexts.
    """
    trt = types.ModuleType(name)
    trt.__version__ = version
    major = int(version.split(".")[0])
    trt.log = types.SimpleNamespace(networks=[], configs=[], contexts=[], fail=None)
    trt.DataType, trt.LayerType, trt.ITensor = DataType, LayerType, Tensor
    for ours, theirs in (("float32", "FLOAT"), ("float16", "HALF"), ("int32", "INT32"), ("int64", "INT64"),
                         ("uint8", "UINT8"), ("bool", "BOOL")):  # fmt: skip
        setattr(trt, ours, DataType[theirs])
    flags = ["TF32"] if major >= 11 else ["TF32", "FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"]
    trt.BuilderFlag = enum.Enum("BuilderFlag", flags)
    creation = ["EXPLICIT_BATCH"] if major < 10 else ["EXPLICIT_BATCH", "STRONGLY_TYPED"]
    if major >= 11:
        creation = ["STRONGLY_TYPED", "PREFER_AOT_PYTHON_PLUGINS"]
    trt.NetworkDefinitionCreationFlag = enum.IntEnum("Flag", creation, start=0)
    trt.ProfilingVerbosity = enum.Enum("ProfilingVerbosity", ["LAYER_NAMES_ONLY", "DETAILED"])
    trt.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
    trt.LayerInformationFormat = enum.Enum("LayerInformationFormat", ["JSON"])
    if plugin or major >= 10:
        trt.QuickPluginCreationRequest = enum.Enum("QuickPluginCreationRequest", ["STRICT_AOT"])

    class ILogger:
        INTERNAL_ERROR, ERROR, WARNING = range(3)

        def __init__(self, *_):
            pass

        def log(self, severity, text):
            pass

    class Builder:
        def __init__(self, logger):
            self.logger = logger

        def create_network(self, flags=0):
            trt.log.networks.append(Network(flags))
            return trt.log.networks[-1]

        def create_builder_config(self):
            trt.log.configs.append(Config())
            return trt.log.configs[-1]

        def create_optimization_profile(self):
            return Profile()

        def build_serialized_network(self, network, config):
            assert config.profiling_verbosity is trt.ProfilingVerbosity.DETAILED and len(config.profiles) == 1
            if trt.log.fail == "build":
                self.logger.log(ILogger.ERROR, "no kernel for this network")
                return None
            half = "FP16" in config.flags
            layers = []
            for layer in network.layers:
                if layer.type is LayerType.CONVOLUTION:
                    kind = layer.outputs[0].dtype
                    if half and layer.precision is None:
                        kind = DataType.HALF
                    if trt.log.fail == "silently fp32":
                        kind = DataType.FLOAT
                    word = "Half" if kind is DataType.HALF else "Float"
                    layers.append(
                        {"LayerType": "CaskConvolution", "Outputs": [{"Format/Datatype": f"Row major linear {word}"}]}
                    )
            plan = {
                "model": network.model.SerializeToString() if network.model else b"",
                "names": [t.name for t in (*network.inputs, *network.outputs)],
                "layers": json.dumps({"Layers": layers}),
            }
            return plan_bytes(plan)

    class OnnxParser:
        num_errors = 1

        def __init__(self, network, logger):
            self.network = network

        def get_error(self, index):
            return "node 7: not supported"

        def parse(self, data):
            if trt.log.fail == "parse":
                return False
            model = onnx.load_from_string(data)
            inferred = onnx.shape_inference.infer_shapes(model).graph
            kinds = {v.name: v.type.tensor_type for v in (*inferred.input, *inferred.value_info, *inferred.output)}

            def tensor(name):
                kind = kinds[name]
                shape = tuple(d.dim_value or -1 for d in kind.shape.dim)
                return Tensor(name, DataType[_KINDS[kind.elem_type]], shape)

            self.network.model = model
            self.network.inputs = [tensor(v.name) for v in model.graph.input]
            self.network.outputs = [tensor(v.name) for v in model.graph.output]
            for node in model.graph.node:
                kind = {"Conv": LayerType.CONVOLUTION, "Cast": LayerType.CAST}.get(node.op_type, LayerType.OTHER)
                outputs = [tensor(n) for n in node.output if n in kinds]
                if outputs:
                    self.network.layers.append(Layer(node.name, kind, outputs))
            return True

    class Runtime:
        def __init__(self, logger):
            pass

        def deserialize_cuda_engine(self, plan):
            if trt.log.fail == "deserialize":
                return None
            return Engine(trt, read_plan(bytes(plan)))

    trt.ILogger, trt.Logger, trt.Builder, trt.OnnxParser, trt.Runtime = ILogger, ILogger, Builder, OnnxParser, Runtime
    return trt


class Engine:
    def __init__(self, trt, plan) -> None:
        self.trt, self.plan = trt, plan
        model = onnx.load_from_string(plan["model"])
        self.dtypes = {
            v.name: np.dtype(helper.tensor_dtype_to_np_dtype(v.type.tensor_type.elem_type))
            for v in (*model.graph.input, *model.graph.output)
        }
        self.inputs = [v.name for v in model.graph.input]
        self.outputs = [v.name for v in model.graph.output]
        self.session = None

    num_io_tensors = property(lambda self: len(self.plan["names"]))

    def get_tensor_name(self, index):
        return self.plan["names"][index]

    def create_engine_inspector(self):
        return types.SimpleNamespace(get_engine_information=lambda kind: self.plan["layers"])

    def create_execution_context(self):
        if self.trt.log.fail == "context":
            return None
        if self.session is None:
            self.session = ort.InferenceSession(self.plan["model"])
        context = Context(self)
        self.trt.log.contexts.append(context)
        return context


class Context:
    """Runs the network in ONNX Runtime on the addresses it was given, as an engine would on a device."""

    def __init__(self, engine) -> None:
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.profile = None
        self.runs = 0
        self.inside = False

    def set_optimization_profile_async(self, index, stream):
        self.profile = index
        return True

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return True

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def _feeds(self):
        return {n: _view(self.addresses[n], self.shapes[n], self.engine.dtypes[n]) for n in self.engine.inputs}

    def get_tensor_shape(self, name):
        values = self.engine.session.run([name], {n: a.copy() for n, a in self._feeds().items()})
        return values[0].shape

    def execute_async_v3(self, stream):
        assert self.profile == 0 and not self.inside, "a context is used by two calls at once"
        if self.engine.trt.log.fail == "execute":
            return False
        self.inside = True
        values = self.engine.session.run(self.engine.outputs, self._feeds())
        for name, value in zip(self.engine.outputs, values, strict=True):
            _view(self.addresses[name], value.shape, value.dtype)[...] = value
        self.runs += 1
        self.inside = False
        return True


def _view(address, shape, dtype):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * size).from_address(address), dtype).reshape(shape)


class Cuda:
    """`cuda.bindings.runtime` with the host's memory as the devices'. Counts what is not given back.

    Memory and streams belong to the device that their thread was using, and copies mix no devices.
    """

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaDeviceAttr = types.SimpleNamespace(
        cudaDevAttrComputeCapabilityMajor=75, cudaDevAttrComputeCapabilityMinor=76
    )

    def __init__(self, count: int = 1, capability: tuple[int, int] = (8, 9), memory: int = 1 << 30) -> None:
        self.count, self.capability, self.memory = count, capability, memory
        self.blocks: dict[int, ctypes.Array] = {}
        self.hosts: dict[int, ctypes.Array] = {}
        self.streams: set[int] = set()
        self._next = 1
        self._thread = threading.local()
        self.device_of: dict[int, int] = {}  # of blocks
        self.stream_on: dict[int, int] = {}

    @property
    def current(self) -> int:
        return getattr(self._thread, "device", 0)

    def cudaGetDeviceCount(self):
        return (0, self.count) if self.count else (35, None)

    def cudaGetErrorString(self, status):
        text = {35: b"CUDA driver version is insufficient for CUDA runtime version", 2: b"out of memory"}
        return 0, text[int(status)]

    def cudaDeviceGetAttribute(self, kind, index):
        return 0, self.capability[0 if kind == 75 else 1]

    def cudaSetDevice(self, index):
        assert 0 <= index < self.count
        self._thread.device = index
        return (0,)

    def cudaMalloc(self, size):
        if size + sum(len(block) for block in self.blocks.values()) > self.memory:
            return 2, None
        block = ctypes.create_string_buffer(b"\xcc" * size, size)
        self.blocks[ctypes.addressof(block)] = block
        self.device_of[ctypes.addressof(block)] = self.current
        return 0, ctypes.addressof(block)

    def cudaFree(self, address):
        del self.blocks[address]
        return (0,)

    def cudaHostAlloc(self, size, flags):
        block = ctypes.create_string_buffer(size)
        self.hosts[ctypes.addressof(block)] = block
        return 0, ctypes.addressof(block)

    def cudaFreeHost(self, address):
        del self.hosts[address]
        return (0,)

    def cudaStreamCreateWithFlags(self, flags):
        self._next += 1
        self.streams.add(self._next)
        self.stream_on[self._next] = self.current
        return 0, self._next

    def cudaStreamDestroy(self, stream):
        self.streams.remove(stream)
        return (0,)

    def cudaStreamSynchronize(self, stream):
        assert stream in self.streams
        return (0,)

    def cudaMemcpyAsync(self, to, source, size, kind, stream):
        assert stream in self.streams
        device = to if kind == 1 else source
        (block,) = [a for a, b in list(self.blocks.items()) if a <= device and device + size <= a + len(b)]
        assert self.device_of[block] == self.stream_on[stream] == self.current, "a copy mixes devices"
        ctypes.memmove(to, source, size)
        return (0,)


def plugin_module(trt: types.ModuleType) -> types.ModuleType:
    """A stand-in for `tensorrt.plugin`: the rules that its decorators hold functions to, and integers as shapes."""
    trtp = types.ModuleType("tensorrt.plugin")
    trtp.registry = {}
    trtp.op = types.SimpleNamespace()

    class TensorDesc:
        def __init__(self, shape_expr, dtype):
            self.shape_expr, self.dtype = shape_expr, dtype

    class SymInt32(int):
        pass

    class SymExprs(list):
        pass

    class SymIntExprs(SymExprs):
        def __init__(self, length):
            super().__init__([None] * length)

    class KernelLaunchParams:
        grid_x = grid_y = grid_z = block_x = block_y = block_z = 1
        shared_mem = 0

    class AutoTuneCombination:
        def __init__(self, io_types, layouts, tactics):
            self.io_types, self.layouts, self.tactics = io_types.replace(" ", "").split(","), layouts, tactics

    for kind in (TensorDesc, SymInt32, SymExprs, SymIntExprs, KernelLaunchParams, AutoTuneCombination):
        setattr(trtp, kind.__name__, kind)
    trtp.from_shape_expr = TensorDesc

    def register(name):
        def decorate(function):
            signature = inspect.signature(function)
            kinds = [p.annotation for p in signature.parameters.values()]
            tensors = [k for k in kinds if k is TensorDesc]
            assert kinds[: len(tensors)] == tensors and set(kinds[len(tensors) :]) <= {int, float, str, bool, bytes}
            assert all(p.default is inspect.Parameter.empty for p in signature.parameters.values())
            returns = typing.get_args(signature.return_annotation)
            assert returns and set(returns) == {TensorDesc}
            names = list(signature.parameters)
            definition = types.SimpleNamespace(
                describe=function, inputs=names[: len(tensors)], attributes=names[len(tensors) :], outputs=len(returns)
            )
            trtp.registry[name] = definition
            namespace, short = name.split("::")

            def define(*tensors, **attributes):
                assert list(attributes) == definition.attributes
                assert all(type(value) is int for value in attributes.values())
                return lambda: (list(tensors), [], types.SimpleNamespace(definition=definition, attributes=attributes))

            setattr(trtp.op, namespace, types.SimpleNamespace(**{short: define}))
            return function

        return decorate

    def checked(name, role, last):
        def decorate(function):
            definition = trtp.registry[name]
            names = list(inspect.signature(function).parameters)
            attributes = [entry for entry in names if entry in definition.attributes]
            assert names == [*definition.inputs, *attributes, *last]
            assert role != "implement" or attributes == definition.attributes, "all attributes are passed in order"
            setattr(definition, role, function)
            return function

        return decorate

    trtp.register = register
    trtp.autotune = lambda name: checked(name, "choices", ["outputs"])
    trtp.aot_impl = lambda name: checked(name, "implement", ["outputs", "tactic"])
    return trtp
