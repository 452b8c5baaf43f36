"""The version of the package and of the artifact's manifest."""

__version__ = "0.1.0"

#: Version of the manifest's schema. A reader accepts its own and older ones, and refuses newer ones.
SCHEMA_VERSION = 3
