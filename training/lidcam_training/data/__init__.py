"""Data sets that anyone can make."""
