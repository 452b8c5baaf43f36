"""`lidcam export`."""


def export() -> None:
    """Export a trained classifier as a localization artifact."""
