"""Checkpoint to artifact: needs the extra `export` (torch, onnx, timm)."""
