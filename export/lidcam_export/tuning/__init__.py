"""`lidcam tune`: percentile, theta, NWC, views and CRF of an artifact, chosen on pictures with masks or boxes."""
