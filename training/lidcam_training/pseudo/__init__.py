"""Pseudo labels: from a classifier's activation maps to label maps for training a segmentation network."""
