"""Coverage-guided inputs for the protobuf reader and the manifest, by atheris (pip install atheris; not a test extra).

Run: python tests/hostile/reader_atheris.py [CORPUS] [-atheris_runs=N] [-max_len=4096]

An input passes if it is read or refused with a `LidcamError`; atheris keeps what should not as `crash-...`.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import tempfile
from pathlib import Path

import atheris

from lidcam_rt import protobuf
from lidcam_rt.artifact import Manifest, json_object, read_manifest
from lidcam_rt.errors import LidcamError
from lidcam_rt.protobuf import model_header

# One by one, since an editable installation has an import hook of its own.
_READER = [entry for entry in vars(protobuf).values() if inspect.isfunction(entry)]
for _function in (*_READER, json_object, Manifest.from_metadata.__func__):
    atheris.instrument_func(_function)

_FILE = Path(tempfile.mkdtemp()) / "m.onnx"


def one_input(data: bytes) -> None:
    """Read a file of these bytes."""
    _FILE.write_bytes(data)
    for read in (model_header, read_manifest):
        with contextlib.suppress(LidcamError):
            read(_FILE)


def main() -> None:
    """Start from the tiny artifact, unless there is a corpus."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import artifacts

    arguments = sys.argv if any(not a.startswith("-") for a in sys.argv[1:]) else [*sys.argv, tempfile.mkdtemp()]
    corpus = Path(next(a for a in arguments[1:] if not a.startswith("-")))
    corpus.mkdir(parents=True, exist_ok=True)
    if not any(corpus.iterdir()):
        artifacts.build(corpus / "seed.onnx", top_k=2)
    atheris.Setup(arguments, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
