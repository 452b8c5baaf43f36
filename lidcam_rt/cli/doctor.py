"""`lidcam doctor`."""


def doctor() -> None:
    """Say what is installed, what is missing, and the command that installs it."""
