"""How `lidcam serve` begins: names, addresses, ports and files that cannot be had; and compressed messages of gRPC."""

from __future__ import annotations

import socket
import subprocess
import sys

import httpx
import numpy as np
import pytest
from servers import PATIENCE, ROOT, png

from lidcam_rt.errors import InputError
from lidcam_serve.options import ModelSpec, ServeOptions, specs


def started(*arguments: object) -> tuple[int, str]:
    """Exit status and messages of a server that cannot start."""
    code = "import sys; from lidcam_cli.main import main; main(['serve', *sys.argv[1:]])"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE)
    return done.returncode, done.stderr


def test_a_file_that_is_missing_is_the_artifacts_fault(tmp_path):
    status, told = started(tmp_path / "missing.onnx", "--port", 0)
    assert status == 3 and "missing.onnx: cannot be read" in told


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_of_grpc_that_is_taken_is_said(model, workers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, told = started(model, "--port", 0, "--grpc-port", port, "--workers", workers)
    assert status == 6 and f"127.0.0.1:{port}: gRPC cannot listen there" in told and "--grpc-port" in told
    assert "standard output" not in told and "add_port" not in told


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
def test_an_ipv6_address(serve, model):
    server = serve(model, "--host", "::1")
    url = f"http://[::1]:{server.port}"
    assert server.lines[0]["text"].startswith(f"{url}/ as soon")
    answer = httpx.post(f"{url}/v1/localize", content=png(), headers={"origin": url}, timeout=PATIENCE)
    assert answer.status_code == 200
    assert server.end() == 0


def test_versions_are_numbers_and_names_are_free_of_each_other():
    assert ModelSpec.of("a:01=x.onnx").version == "1"
    with pytest.raises(InputError, match="two models are a version 1"):
        ServeOptions(specs(["a:1=x.onnx", "a:01=y.onnx"]))
    with pytest.raises(InputError, match="a_pictures is also the name under which a takes pictures"):
        ServeOptions(specs(["a=x.onnx", "a_pictures=y.onnx"]))
    ServeOptions(specs(["a_pictures=y.onnx"]))


@pytest.mark.slow
def test_compressed_messages_of_grpc_are_refused(serve, model):
    """A megabyte of them is a gigabyte unpacked."""
    client_of = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    server = serve(model)
    picture = client_of.InferInput("picture", [1], "BYTES")
    picture.set_data_from_numpy(np.array([png()], object))
    with client_of.InferenceServerClient(server.grpc) as client:
        for inputs, outputs, options in (
            ([picture], None, {"compression_algorithm": "gzip"}),
            ([picture, picture], None, {}),
            ([picture], [client_of.InferRequestedOutput("score", class_count=2)], {}),
            ([picture], [client_of.InferRequestedOutput("score")] * 2, {}),
            ([picture], None, {"parameters": {"refin": "psa"}}),
        ):
            with pytest.raises(Exception, match=r"UNIMPLEMENTED|INVALID_ARGUMENT"):
                client.infer("tiny_pictures", inputs, outputs=outputs, **options)
        assert client.infer("tiny_pictures", [picture], timeout=60_000_000, priority=1).as_numpy("box").shape[-1] == 4
    assert server.end() == 0


def test_a_reload_that_breaks_in_any_way_leaves_the_old_model(model, monkeypatch, tmp_path):
    import shutil

    from test_app import hosting

    from lidcam_serve import models as module

    path = tmp_path / "m.onnx"
    shutil.copy(model, path)
    with hosting(path) as service:
        old = service.models.get("tiny")
        path.write_bytes(path.read_bytes() + b"\0")

        def broken(*arguments, **options):
            raise ValueError("an error of a library")

        monkeypatch.setattr(module, "load", broken)
        assert service.models.reload() == {"tiny:1": "failed"} and service.models.get("tiny") is old
