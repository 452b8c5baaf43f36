from __future__ import annotations

import pytest

pytest.importorskip("starlette", reason="extra serve is not installed")
pytest.importorskip("grpc", reason="extra serve is not installed")

import artifacts
from servers import PATIENCE, Server, png


@pytest.fixture
def serve():
    """Starts servers, and ends them after the test."""
    servers: list[Server] = []

    def start(*arguments, **options) -> Server:
        servers.append(Server(*arguments, **options))
        return servers[-1]

    yield start
    for server in servers:
        if server.process.poll() is None:
            server.process.terminate()
            try:
                server.process.wait(PATIENCE)
            finally:
                server.process.kill()


@pytest.fixture(scope="module")
def server(model):
    """One server of the tiny artifact for the tests of a module."""
    running = Server(model, "--max-body", "2000000", "--max-pixels", "1000000", "--max-batch", "4")
    yield running
    assert running.end() == 0


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of pictures, one of each class of the tiny artifact, with the object at another place."""
    folder = tmp_path_factory.mktemp("pictures")
    paths = []
    for i, colour in enumerate(artifacts.CLASSES):
        paths.append(folder / f"{colour}.png")
        paths[-1].write_bytes(png(colour, box=(10 * i, 5, 10 * i + 60, 50)))
    return paths


@pytest.fixture(scope="session")
def model_manifest(model):
    """The manifest of the tiny artifact."""
    from lidcam_rt.artifact import read_manifest

    return read_manifest(model)
