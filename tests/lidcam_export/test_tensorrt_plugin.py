"""The ahead-of-time plugin against the rules of tensorrt.plugin: a stand-in's, and NVIDIA's own Python code.

NVIDIA's code is that of the wheel tensorrt-cu13-bindings, run on stand-ins for what TensorRT's libraries would give.
Neither builds an engine: that needs the libraries and a GPU.
"""

import enum
import importlib.util
import re
import sys
import types
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import tensorrt_standin as standin
from downloads import package
from lidcam_export.tensorrt.plugin import KERNEL, PLUGIN, PasPlugin, integer_attributes

from lidcam_rt.errors import BackendError, ExportError
from lidcam_rt.pas import PasOptions


def kernel(major):
    return f".visible .entry {KERNEL}( // {major}\n\0".encode(), 8 if major >= 9 else 1


ATTRIBUTES = {"percentile_milli": 90000, "theta_micro": 350000, "flags": 9}


@pytest.mark.parametrize(
    ("spec", "flags"),
    [
        (PasOptions(percentile=97.5, theta=0.35), 0),
        (PasOptions(percentile=97.5, theta=0.35, mode="normalize"), 1),
        (PasOptions(percentile=97.5, theta=0.35, precision="float", interpolation="linear"), 10),
        (PasOptions(97.5, 0.35, "normalize", "float", "raw", "linear"), 15),
    ],
)  # fmt: skip
def test_attributes_are_the_kernels_integers(spec, flags):
    # theta comes out of an ONNX attribute, which is a float32
    attributes = asdict(spec) | {"theta": float(np.float32(spec.theta)), "mode": spec.mode.encode()}
    assert integer_attributes(attributes) == {"percentile_milli": 97500, "theta_micro": 350000, "flags": flags}
    del attributes["where"]
    with pytest.raises(ExportError, match="where"):
        integer_attributes(attributes)


@pytest.mark.parametrize(("major", "tactics"), [(8, [1]), (9, [1, 2]), (12, [1, 2])])
def test_what_is_registered(major, tactics):
    trt = standin.module()
    trtp = standin.plugin_module(trt)
    PasPlugin(trt, trtp, kernel)
    definition = trtp.registry[PLUGIN]
    cam, like = trtp.TensorDesc((3, 2, 24, 12), trt.float32), trtp.TensorDesc((3, 3, 384, 192), trt.float32)
    outputs = definition.describe(cam, like, **ATTRIBUTES, major=major)
    assert [o.shape_expr for o in outputs] == [(3, 2, 384, 192), (3, 2, 384, 192), (3, 2)]
    assert all(o.dtype is trt.float32 for o in outputs)
    (choice,) = definition.choices(cam, like, major, outputs)
    assert choice.io_types == ["FP32"] * 5 and choice.layouts == "LINEAR" and choice.tactics == tactics
    for tactic in tactics:
        name, ptx, launch, scalars = definition.implement(cam, like, *ATTRIBUTES.values(), major, outputs, tactic)
        blocks = 8 if tactic == 2 else 1
        assert name == KERNEL and ptx == kernel(major if tactic == 2 else 7)[0][:-1]
        assert (launch.grid_x, launch.block_x, launch.shared_mem) == (3 * 2 * blocks, 512, 49152)
        # h, w, height, width, percentile_milli, theta_micro, flags, shared_bytes: kernels/pas/pas_aot.cu
        assert list(scalars) == [24, 12, 384, 192, 90000, 350000, 9, 49152]


def test_the_scalars_are_those_of_the_kernels_source():
    """The argument list of the CUDA source, in the order that TensorRT passes: inputs, scalars, outputs."""
    source = (Path(__file__).parents[2] / "kernels/pas/pas_aot.cu").read_text()
    arguments = re.search(rf"{KERNEL}\((.*?)\)\s*\{{", source, re.S)[1]
    names = [re.sub(r"/\*(.*?)\*/", r"\1", part).split()[-1].strip("*") for part in arguments.split(",")]
    assert names == ["cam", "like", "h", "w", "height", "width", "percentile_milli", "theta_micro", "flags",
                     "shared_bytes", "map", "mask", "threshold"]  # fmt: skip


def test_registering_twice_is_harmless_and_missing_kernels_are_named():
    trt = standin.module()
    trtp = standin.plugin_module(trt)

    def none(major):
        raise BackendError("there is no PTX")

    with pytest.raises(BackendError, match="no PTX"):
        PasPlugin(trt, trtp, none)
    assert not trtp.registry
    PasPlugin(trt, trtp, kernel)
    first = trtp.registry[PLUGIN]
    PasPlugin(trt, trtp, kernel)
    assert trtp.registry[PLUGIN] is first


def test_the_ptx_of_this_build():
    """Where nvcc built the kernels: each PTX has the entry, and assembles the arguments that are passed."""
    cuda = pytest.importorskip("lidcam_gpu.kernels", reason="the CUDA kernels are not part of this build")
    if not cuda.compiled():
        pytest.skip(f"no kernels: {cuda.reason()}")
    for major in (7, 9, 12):
        ptx, blocks = cuda.pas_ahead_of_time(major)
        text = ptx.rstrip(b"\0").decode()
        assert f".entry {KERNEL}(" in text and blocks == (1 if major < 9 else 8)
        entry = text[text.index(f".entry {KERNEL}(") :].split(")")[0]
        kinds = [line.split()[1] for line in entry.splitlines() if ".param" in line]
        assert kinds == [".u64"] * 2 + [".u32"] * 8 + [".u64"] * 3


class Expression:
    """A dimension expression that is a number."""

    def __init__(self, value):
        self.value = value

    def is_constant(self):
        return True

    def get_constant_value(self):
        return self.value


class Builder:
    def constant(self, value):
        return Expression(value)

    def operation(self, kind, a, b):
        operations = {"SUM": a.value + b.value, "PROD": a.value * b.value}
        return Expression(operations[kind.name])


def descriptor(trt, dims):
    found = trt.DynamicPluginTensorDesc()
    found.desc = types.SimpleNamespace(type=trt.float32, format="LINEAR", scale=1.0, dims=dims)
    found.opt = found.min = found.max = dims
    return found


@pytest.fixture
def nvidia(monkeypatch):
    """`tensorrt.plugin` as NVIDIA wrote it, on a stand-in `tensorrt`."""
    folder = package("tensorrt-cu13-bindings==11.4.0.106") / "tensorrt_bindings" / "plugin"
    trt = standin.module(plugin=True)
    trt.PluginFieldType = enum.Enum(
        "PluginFieldType", ["INT8", "INT16", "INT32", "INT64", "FLOAT16", "FLOAT32", "FLOAT64", "CHAR", "UNKNOWN"]
    )
    trt.DimensionOperation = enum.Enum(
        "DimensionOperation", ["SUM", "PROD", "MAX", "MIN", "SUB", "EQUAL", "LESS", "FLOOR_DIV", "CEIL_DIV"]
    )
    trt.TensorFormat = types.SimpleNamespace(LINEAR="LINEAR")
    trt.PluginArgType = enum.Enum("PluginArgType", ["INT"])
    trt.PluginArgDataType = enum.Enum("PluginArgDataType", ["INT8", "INT16", "INT32"])
    trt.TensorRTPhase = enum.Enum("TensorRTPhase", ["BUILD", "RUNTIME"])
    trt.QuickPluginCreationRequest = enum.Enum("Request", ["STRICT_AOT", "STRICT_JIT", "PREFER_AOT", "PREFER_JIT"])
    trt.IDimensionExpr = Expression
    trt.Dims = type("Dims", (tuple,), {"MAX_DIMS": 8})
    trt.DimsExprs = lambda length: [None] * length
    trt.PluginField = lambda name, data, kind: types.SimpleNamespace(name=name, data=np.asarray(data), type=kind)
    trt.PluginFieldCollection = list
    for name in ("IPluginV3", "IPluginV3QuickCore", "IPluginV3QuickBuild", "IPluginV3QuickAOTBuild",
                 "IPluginV3QuickRuntime", "IPluginCreatorV3Quick", "ISymExpr"):  # fmt: skip
        setattr(trt, name, type(name, (), {"__init__": lambda self: None}))
    for name in ("PluginTensorDesc", "DynamicPluginTensorDesc"):
        setattr(trt, name, type(name, (), {}))
    creators = {}
    trt.get_plugin_registry = lambda: types.SimpleNamespace(
        register_creator=lambda creator, namespace: creators.update({(creator.plugin_namespace, "PaS"): creator}),
        get_creator=lambda name, version, namespace: creators[namespace, name],
    )
    trt.__path__ = []
    for name in [entry for entry in sys.modules if entry.split(".")[0] == "tensorrt"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    spec = importlib.util.spec_from_file_location(
        "tensorrt.plugin", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "tensorrt.plugin", module)
    spec.loader.exec_module(module)
    yield trt, module
    for name in [entry for entry in sys.modules if entry.startswith("tensorrt.")]:
        sys.modules.pop(name)


@pytest.mark.parametrize(("major", "tactics"), [(8, [1]), (12, [1, 2])])
def test_nvidias_code_takes_the_plugin(nvidia, major, tactics):
    """All that TensorRT asks of a plugin while it builds an engine, in its order, through NVIDIA's own code."""
    trt, trtp = nvidia
    PasPlugin(trt, trtp, kernel)
    cam, like = standin.Tensor("cam", trt.float32, (3, 2, 24, 12)), standin.Tensor("x", trt.float32, (3, 3, 384, 192))
    create = trtp.op.lidcam.PaS(cam, like, **ATTRIBUTES, major=major)
    inputs, _, plugin = create(trt.QuickPluginCreationRequest.STRICT_AOT)
    assert inputs == [cam, like] and plugin.get_num_outputs() == 3
    assert plugin.get_output_data_types([trt.float32] * 2, [4, 4]) == [trt.float32] * 3
    shapes = plugin.get_output_shapes([[Expression(d) for d in t.shape] for t in inputs], [], Builder())
    assert [[d.value for d in shape] for shape in shapes] == [[3, 2, 384, 192], [3, 2, 384, 192], [3, 2]]
    dims = [t.shape for t in inputs] + [tuple(d.value for d in shape) for shape in shapes]
    described = [descriptor(trt, entry) for entry in dims]
    found = plugin.get_supported_format_combinations(described, 2)
    assert [(f.type, f.format) for f in found] == [(trt.float32, "LINEAR")] * 5
    plugin.configure_plugin(described[:2], described[2:])
    assert sorted(plugin.get_valid_tactics()) == tactics
    for tactic in tactics:
        plugin.set_tactic(tactic)
        launch, setter = types.SimpleNamespace(), Setter()
        plugin.get_launch_params(None, described, 2, launch, setter, Builder())
        blocks = 8 if tactic == 2 else 1
        sizes = [getattr(launch, name).expr.value for name in ("grid_x", "grid_y", "grid_z", "block_x", "shared_mem")]
        assert sizes == [6 * blocks, 1, 1, 512, 49152]
        assert setter.nbSymExprs == 8 and [e.expr.value for e in setter.entries] == [
            24, 12, 384, 192, 90000, 350000, 9, 49152,
        ]  # fmt: skip
        assert all(e.dtype is trt.PluginArgDataType.INT32 for e in setter.entries)
        name, ptx = plugin.get_kernel([d.desc for d in described[:2]], [d.desc for d in described[2:]])
        assert (name, ptx) == (KERNEL, kernel(major if tactic == 2 else 7)[0][:-1])


class Setter:
    def __init__(self):
        self.entries = []

    def __setitem__(self, index, value):
        assert index == len(self.entries)
        self.entries.append(value)


def test_nvidias_code_refuses_what_the_stand_in_refuses(nvidia):
    """A signature that drifts is caught by both."""
    trt, trtp = nvidia
    for module in (trtp, standin.plugin_module(trt)):
        PasPlugin(trt, module, kernel)
        with pytest.raises((ValueError, AssertionError)):

            @module.aot_impl(PLUGIN)
            def wrong(cam, like, outputs, flags, tactic):
                return None

        with pytest.raises((ValueError, AssertionError, KeyError)):
            module.op.lidcam.PaS(standin.Tensor("cam", trt.float32, (1,)), flags=1)
