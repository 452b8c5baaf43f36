"""Track 1 from data to table: CAM network, pseudo labels, segmentation networks, artifacts, scores."""
