"""Verbs of the command line: eval, submit, compare."""
