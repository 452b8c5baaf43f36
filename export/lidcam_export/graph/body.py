"""Building the nodes of an ONNX function, one after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Body"]


class Body:
    """Nodes in order; every method returns the name of the tensor that it adds.

    Attributes:
        nodes: the nodes so far.
        hw: constant [2, 3], the axes of height and width.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._count = 0
        self.hw = self.whole([2, 3])

    def __call__(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """A node of the default domain with one output."""
        if name is None:
            self._count += 1
            name = f"v{self._count}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name

    def real(self, value: npt.ArrayLike) -> str:
        """A float32 constant."""
        return self("Constant", value=numpy_helper.from_array(np.asarray(value, np.float32)))

    def whole(self, value: npt.ArrayLike) -> str:
        """An int64 constant."""
        return self("Constant", value=numpy_helper.from_array(np.asarray(value, np.int64)))

    def as_real(self, value: str) -> str:
        """Cast to float32."""
        return self("Cast", value, to=TensorProto.FLOAT)

    def minimum(self, maps: str) -> str:
        """Smallest value of each map, [N, K, 1, 1]."""
        return self("ReduceMin", maps, self.hw, keepdims=1)

    def maximum(self, maps: str) -> str:
        """Largest value of each map, [N, K, 1, 1]."""
        return self("ReduceMax", maps, self.hw, keepdims=1)
