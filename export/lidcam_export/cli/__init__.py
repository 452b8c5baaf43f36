"""Verbs of the command line: export, build, ablate."""
