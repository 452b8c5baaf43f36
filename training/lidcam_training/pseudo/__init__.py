"""Pseudo labels: from a classifier's activation maps to label maps that a segmentation network is trained on."""
