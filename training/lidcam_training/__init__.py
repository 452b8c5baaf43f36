"""Models, data and training: needs the extra `train`."""
