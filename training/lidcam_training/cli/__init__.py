"""Verbs of the command line: `train`, `data`, `analyze`."""
