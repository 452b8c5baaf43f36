"""The graph of an artifact: CAM, NWC and the PaS operator with its function body."""
