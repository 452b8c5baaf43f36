"""Segmentation networks: built, trained on label maps (exact ones or pseudo labels), and kept as checkpoints."""
