"""`lidcam serve` as a process: clients of other makers, hostile ones, signals, reloading, dying workers."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import artifacts
import httpx
import numpy as np
import pytest
from servers import PATIENCE, png

import lidcam_rt


def post(url: str, data: bytes, **params):
    return httpx.post(f"{url}/v1/localize", content=data, params=params, timeout=PATIENCE)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("many", [1, 16])
def test_tritonclient_gives_what_the_localizer_gives(server, localizer, protocol, many):
    module = pytest.importorskip(f"tritonclient.{protocol}", reason="tritonclient is not installed")
    address = server.address if protocol == "http" else server.grpc
    rng = random.Random(5)
    boxes = [(x := rng.randrange(80), y := rng.randrange(40), x + 60, y + 40) for _ in range(many)]
    files = [png(artifacts.CLASSES[i % 4], box=box) for i, box in enumerate(boxes)]

    def infer(data: bytes):
        with module.InferenceServerClient(address) as client:
            picture = module.InferInput("picture", [1], "BYTES")
            picture.set_data_from_numpy(np.array([data], object))
            names = ("class_name", "score", "box", "mask", "threshold")
            answer = client.infer("tiny_pictures", [picture], outputs=[module.InferRequestedOutput(n) for n in names])
            return {name: answer.as_numpy(name)[0, 0] for name in names}

    with ThreadPoolExecutor(many) as pool:  # all at once: the server makes batches of them
        answers = list(pool.map(infer, files))
    for data, answer in zip(files, answers, strict=True):
        expected = localizer(data)
        assert answer["class_name"].decode() == expected.class_name and tuple(answer["box"]) == expected.box
        assert np.array_equal(answer["mask"].astype(bool), expected.mask)
        assert answer["score"] == np.float32(expected.score) and answer["threshold"] == expected.threshold


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_graph_through_tritonclient_is_the_graph(server, localizer, protocol):
    module = pytest.importorskip(f"tritonclient.{protocol}", reason="tritonclient is not installed")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    labels = np.array([[0, 1], [2, 3], [-1, -1]])
    names = ["logits", "class_ids", "scores", "cam", "map8", "mask", "threshold"]
    expected = localizer.backend.run(pixels, labels, names)
    with module.InferenceServerClient(server.address if protocol == "http" else server.grpc) as client:
        told = client.get_model_metadata("tiny", **({"as_json": True} if protocol == "grpc" else {}))
        assert [entry["name"] for entry in told["inputs"]] == ["image", "labels"]
        for binary in (True, False) if protocol == "http" else (None,):
            more = {} if binary is None else {"binary_data": binary}
            image = module.InferInput("image", list(pixels.shape), "UINT8").set_data_from_numpy(pixels, **more)
            ids = module.InferInput("labels", list(labels.shape), "INT64").set_data_from_numpy(labels, **more)
            wanted = [module.InferRequestedOutput(name, **more) for name in names]
            answer = client.infer("tiny", [image, ids], outputs=wanted, model_version="1", request_id="r")
            for name in names:
                assert np.array_equal(answer.as_numpy(name), expected[name]), name
        errors = pytest.importorskip("tritonclient.utils").InferenceServerException
        for name, shape in (("image", [1, 64, 64, 4]), ("image", [65, 64, 64, 3]), ("nothing", [1, 64, 64, 3])):
            wrong = module.InferInput(name, shape, "UINT8").set_data_from_numpy(np.zeros(shape, np.uint8))
            with pytest.raises(errors):
                client.infer("tiny", [wrong])
        with pytest.raises(errors, match="no model"):
            client.infer("other", [image])
        with pytest.raises(errors):
            client.load_model("tiny", config='{"file": "/etc/passwd"}')


def connect(server) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), PATIENCE)


def test_hostile_clients_harm_nobody(server, localizer):
    """A third of the requests are good, and each gets the right answer."""
    good = {colour: (data := png(colour), localizer(data).box) for colour in artifacts.CLASSES}
    head = b"POST /v1/localize HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
    broken = png()[:-30]
    rng = random.Random(3)

    def hostile(kind: int) -> None:
        with connect(server) as client:
            if kind == 0:  # cut in the middle of the body
                client.sendall(head % len(broken) + broken[: len(broken) // 2])
            elif kind == 1:  # no HTTP
                client.sendall(bytes(rng.randrange(256) for _ in range(200)) + b"\r\n\r\n")
                assert b" 400 " in client.recv(4096)
            elif kind == 2:  # damaged picture
                client.sendall(head % len(broken) + broken)
                assert b" 422 " in client.recv(4096)
            elif kind == 3:  # too large, and sent whole
                client.sendall(head % 2_500_000)
                client.sendall(b"x" * 2_500_000)
                assert b" 413 " in client.recv(4096)
            elif kind == 4:  # gone before the answer
                data = good["red"][0]
                client.sendall(head % len(data) + data)
            else:  # a head that does not end, and a connection without a request
                client.sendall(b"GET / HTTP/1.1\r\nX: ")

    def one(number: int) -> None:
        if number % 3:
            hostile(number % 6 if number % 6 != 3 else rng.choice((1, 2, 3)))
        else:
            data, box = good[artifacts.CLASSES[number % 4]]
            answer = post(server.url, data)
            while answer.status_code == 429:
                answer = post(server.url, data)
            assert answer.json()["box"] == list(box)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(120)))
    assert server.process.poll() is None
    tracebacks = [
        entry
        for entry in server.lines
        if "traceback" in entry or (entry["event"] == "text" and "Trace" in entry["text"])
    ]
    assert not tracebacks


@pytest.mark.slow
def test_a_body_that_does_not_come_is_408_and_blocks_nobody(serve, model):
    server = serve(model, "--deadline", "0.5")
    slow = [connect(server) for _ in range(50)]
    for client in slow:
        client.sendall(b"POST /v1/localize HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\nx")
    while (status := post(server.url, png()).status_code) != 200:
        assert status in (408, 504)  # half a second is little on a busy machine
    assert all(b" 408 " in client.recv(4096) for client in slow)
    for client in slow:
        client.close()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_loses_no_accepted_request(serve, model, localizer, workers):
    server = serve(model, "--workers", workers, "--queue", "100")
    data, box = png(), list(localizer(png()).box)
    sent, lock, outcomes = threading.Semaphore(0), threading.Lock(), []

    def client() -> None:
        """Requests on one connection until the server closes it; every answer that was begun must be whole."""
        with httpx.Client(timeout=PATIENCE) as session:
            while True:
                try:
                    answer = session.post(f"{server.url}/v1/localize", content=data)
                except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                    with lock:
                        outcomes.append(error)
                    return
                with lock:
                    outcomes.append(answer)
                sent.release()

    threads = [threading.Thread(target=client) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        assert sent.acquire(timeout=PATIENCE)
    assert server.end() == 0
    for thread in threads:
        thread.join(PATIENCE)
    answers = [entry for entry in outcomes if isinstance(entry, httpx.Response)]
    assert all(answer.status_code == 200 and answer.json()["box"] == box for answer in answers)
    logged = [e for e in server.lines if e.get("event") == "request" and e.get("status") == 200]
    assert len(logged) == len(answers)  # what the server answered has arrived


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_is_under_way_at_sigterm_is_answered(serve, model, localizer, workers):
    """Six slow requests (a CRF on large pictures) that the server has, and nobody has an answer to yet."""
    server = serve(model, "--workers", workers)

    def all_under_way(answers) -> bool:
        while "lidcam_requests_under_way 7.0" not in httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text:
            if any(answer.done() for answer in answers):
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        for side in (700, 1000, 1400, 2000, 2800):  # until the first is not over before the last has arrived
            data = png(size=(side, side), box=(100, 100, 600, 500))
            answers = [pool.submit(post, server.url, data, refine="psa@original") for _ in range(6)]
            if all_under_way(answers):
                break
            assert [answer.result().status_code for answer in answers] == [200] * 6
        else:
            pytest.fail("six requests were never under way at once")
        assert server.end() == 0
        assert [answer.result().status_code for answer in answers] == [200] * 6
        assert {tuple(answer.result().json()["box"]) for answer in answers} == {
            localizer(data, refine="psa@original").box
        }


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_it_as_asked(serve, model, workers):
    server = serve(model, "--workers", workers)
    assert post(server.url, png()).status_code == 200
    assert server.end(signal.SIGINT) == 0
    assert not [entry for entry in server.lines if "Traceback" in entry.get("text", "")]


@pytest.mark.slow
def test_reload_under_load_loses_nothing(serve, model, tmp_path):
    """The models before and after differ in theta, so that each answer tells which one made it."""
    path = tmp_path / "model.onnx"
    shutil.copy(model, path)
    other = artifacts.build(tmp_path / "other.onnx", top_k=2, theta=0.6)
    data = png()
    thresholds = []
    for source in (path, other):
        with lidcam_rt.load(source) as opened:
            thresholds.append(opened(data).threshold)
    server = serve(f"m={path}", "--queue", "100")
    stop, answers, seen = threading.Event(), [], threading.Semaphore(0)

    def client() -> None:
        with httpx.Client(timeout=PATIENCE) as session:
            while not stop.is_set():
                answers.append(session.post(f"{server.url}/v1/localize", content=data))
                seen.release()

    threads = [threading.Thread(target=client) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert seen.acquire(timeout=PATIENCE)
    load = f"{server.url}/v2/repository/models/m/load"
    assert httpx.post(load, timeout=PATIENCE).json() == {"m:1": "unchanged"}
    path.write_bytes(b"not a model")
    assert httpx.post(load, timeout=PATIENCE).status_code == 500
    other.replace(path)
    server.process.send_signal(signal.SIGHUP)
    server.wait(lambda entry: entry["event"] == "model loaded")
    after = post(server.url, data)
    while thresholds[1] not in {answer.json().get("threshold") for answer in answers[-4:]}:
        assert seen.acquire(timeout=PATIENCE)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert after.json()["threshold"] == thresholds[1] != thresholds[0]
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["threshold"] for answer in answers} == set(thresholds)
    assert server.end() == 0


@pytest.mark.slow
def test_reload_reaches_every_worker(serve, model, tmp_path):
    path = tmp_path / "model.onnx"
    shutil.copy(model, path)
    other = artifacts.build(tmp_path / "other.onnx", top_k=2, theta=0.6)
    with lidcam_rt.load(other) as opened:
        expected = opened(png()).threshold
    server = serve(f"m={path}", "--workers", "2")
    before = post(server.url, png()).json()["threshold"]
    other.replace(path)
    seen = len(server.lines)
    told = httpx.post(f"{server.url}/v2/repository/models/m/load", timeout=PATIENCE)
    assert told.json() == {"m:1": "loaded"}
    first = server.wait(lambda entry: entry["event"] == "model loaded", seen)
    server.wait(lambda entry: entry["event"] == "model loaded" and entry["pid"] != first["pid"], seen)
    answers = {post(server.url, png()).json()["threshold"] for _ in range(12)}
    assert answers == {expected} != {before}


@pytest.mark.slow
def test_a_head_that_does_not_end_is_cut(monkeypatch):
    """Also after an answered request on the same connection."""
    import asyncio

    import uvicorn

    from lidcam_serve import process

    monkeypatch.setattr(process, "_HEAD_SECONDS", 1)

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async def run():
        config = uvicorn.Config(app, http=process._Protocol, lifespan="off", log_config=None, timeout_keep_alive=1)
        server, listening = process._Server(config), process.listen("127.0.0.1", 0)
        task = asyncio.create_task(server.serve([listening]))
        for start in (b"", b"GET / HTT", b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT"):
            reader, writer = await asyncio.open_connection(*listening.getsockname())
            writer.write(start)
            told = await asyncio.wait_for(reader.read(), PATIENCE)  # until it is closed
            assert told.endswith(b"ok") if b"Host" in start else not told
            writer.close()
        server.should_exit = True
        await task

    asyncio.run(run())


@pytest.mark.slow
def test_a_killed_worker_is_started_again_and_metrics_are_of_all(serve, model):
    server = serve(model, "--workers", "2")
    data = png()

    def counted(number: int) -> None:
        """Wait until so many answers are counted: a request is counted after its answer was sent."""
        start, end = 'lidcam_requests_total{route="/v1/localize",status="200"}', time.monotonic() + PATIENCE
        while True:
            lines = httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text.splitlines()
            totals = [float(line.split()[-1]) for line in lines if line.startswith(start)]
            if totals == [number]:
                return
            assert time.monotonic() < end and sum(totals) <= number, totals
            time.sleep(0.01)

    assert [post(server.url, data).status_code for _ in range(6)] == [200] * 6
    counted(6)
    before = len(server.lines)
    os.kill(server.pids[0], signal.SIGKILL)
    server.wait(lambda entry: entry["event"] == "worker died" and entry["pid"] == server.pids[0], before)
    answers = []
    while len(answers) < 6:  # the other one answers; a connection that the dead one had taken is cut
        try:
            answers.append(post(server.url, data).status_code)
        except httpx.TransportError:
            time.sleep(0.01)
    assert answers == [200] * 6
    again = server.wait(lambda entry: entry["event"] == "ready" and entry["pid"] not in server.pids, before)
    assert again["port"] == server.port
    counted(12)
    assert server.end() == 0


@pytest.mark.slow
def test_workers_end_with_a_killed_supervisor(serve, model):
    server = serve(model, "--workers", "2")
    server.process.kill()

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    end = time.monotonic() + PATIENCE
    while any(map(alive, server.pids)):
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
def test_several_models_and_versions(serve, model, tmp_path):
    newer = artifacts.build(tmp_path / "newer.onnx", theta=0.6)
    server = serve(f"a:1={model}", f"a:2={newer}", f"b={model}")
    told = httpx.get(f"{server.url}/v1/models", timeout=PATIENCE).json()
    assert [(m["name"], m["version"]) for m in told["models"]] == [("a", "1"), ("a", "2"), ("b", "1")]
    default, old, b = (post(server.url, png(), **options).json() for options in ({}, {"version": "1"}, {"model": "b"}))
    assert (default["version"], old["version"], b["model"]) == ("2", "1", "b")
    assert default["threshold"] != old["threshold"] == b["threshold"]
    assert httpx.get(f"{server.url}/v2/models/a", timeout=PATIENCE).json()["versions"] == ["1", "2"]


@pytest.mark.slow
def test_grpc_asks_for_the_token_too(serve, model):
    client_module = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    server = serve(model, env={"LIDCAM_TOKEN": "correct horse"})
    with client_module.InferenceServerClient(server.grpc) as client:
        assert client.is_server_live()
        with pytest.raises(Exception, match="UNAUTHENTICATED"):
            client.get_model_metadata("tiny")
        told = client.get_model_metadata("tiny", headers={"authorization": "Bearer correct horse"})
        assert told.name == "tiny"
    assert post(server.url, png()).status_code == 401


@pytest.mark.slow
def test_what_cannot_be_served_is_said_at_once(tmp_path, model):
    import subprocess
    import sys

    from servers import ROOT

    def status(*arguments: str) -> tuple[int, str]:
        code = "import sys; from lidcam_cli.main import main; main(['serve', *sys.argv[1:]])"
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
        return done.returncode, done.stderr

    (tmp_path / "bad.onnx").write_bytes(b"x")
    assert status(str(tmp_path / "bad.onnx"), "--port", "0")[0] == 3
    code, text = status(str(model), f"tiny={model}", "--port", "0")
    assert code == 2 and "two models are tiny version 1" in text
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, text = status(str(model), "--port", str(taken.getsockname()[1]))
    assert code == 6 and "cannot listen" in text


@pytest.mark.slow
def test_a_worker_is_told_to_end_once(serve, model):
    """A second SIGTERM means to end at once, and loses what is under way."""
    server = serve(model, "--workers", 2)
    assert server.end() == 0
    assert [entry.get("event") for entry in server.lines].count("draining") == 2
