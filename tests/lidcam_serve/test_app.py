"""The addresses of HTTP, without sockets."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from contextlib import contextmanager

import artifacts
import cv2
import httpx
import numpy as np
import pytest
from PIL import Image
from servers import png

from lidcam_serve.app import build_app
from lidcam_serve.openapi import document
from lidcam_serve.options import ModelSpec, ServeOptions
from lidcam_serve.service import Service

pycocotools = pytest.importorskip("pycocotools.mask")


@contextmanager
def hosting(model, **options):
    settings = {"max_body": 300_000, "max_pixels": 1_000_000, "deadline": 300, **options}
    service = Service(ServeOptions(models=(ModelSpec("tiny", "1", str(model)),), **settings), "cpu")
    try:
        yield service
    finally:
        service.models.close()


@pytest.fixture(scope="module")
def service(model):
    with hosting(model) as running:
        yield running


def call(service, method, url, **options):
    return together(service, lambda client: client.request(method, url, **options))


def together(service, what):
    """The results of a coroutine that gets a client."""

    async def run():
        transport = httpx.ASGITransport(build_app(service), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://here", timeout=300) as client:
            return await what(client)

    return asyncio.run(run())


def mask_of(entry):
    return pycocotools.decode(entry["mask"]).astype(bool)


def bomb(side=20_000):
    """A PNG of a few hundred bytes that says it is huge."""
    out = io.BytesIO()
    Image.new("1", (side, side)).save(out, "png")
    return out.getvalue()


@pytest.mark.parametrize("refine", [None, "psa", "psa@original"])
def test_raw_and_multipart_give_what_the_localizer_gives(service, localizer, refine):
    for colour in artifacts.CLASSES:
        data = png(colour)
        expected = localizer(data, top_k=2, refine=refine)
        params = {"mask": 1, "top_k": 2, **({"refine": refine} if refine else {})}
        raw = call(service, "POST", "/v1/localize", content=data, params=params)
        fields = {name: str(value) for name, value in params.items()}
        form = call(service, "POST", "/v1/localize", files={"image": ("../../etc/passwd", data)}, data=fields)
        for answer in (raw.json(), form.json()):
            assert answer["class_name"] == expected.class_name == colour and answer["score"] == expected.score
            assert answer["box"] == list(expected.box) and answer["threshold"] == expected.threshold
            assert np.array_equal(mask_of(answer), expected.mask)
            assert np.array_equal(mask_of(answer["others"][0]), expected.others[0].mask)
            assert ("unrefined" in answer) == (refine is not None)
            assert "passwd" not in json.dumps(answer)


def test_labels_by_name_and_number(service, localizer):
    for given in ("blue", "2"):
        answer = call(service, "POST", "/v1/localize", content=png("red"), params={"labels": given}).json()
        assert answer["class_name"] == "blue" and answer["topk"][0]["class_name"] == "red"


def test_pictures_come_back_as_png(service, localizer):
    data = png("green")
    expected = localizer(data)
    forms = {"mask": expected.mask * np.uint8(255), "map": expected.map, "overlay": expected.overlay()}
    for form, pixels in forms.items():
        got = call(service, "POST", "/v1/localize", content=data, params={"form": form})
        assert got.headers["content-type"] == "image/png"
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(got.content))), pixels)
    accepted = call(service, "POST", "/v1/localize", content=data, headers={"accept": "image/png"})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(accepted.content))), forms["overlay"])


def test_the_map_comes_with_the_histogram_of_its_percentile(service, localizer):
    answer = call(service, "POST", "/v1/localize", content=png(), params={"map": 1}).json()
    import base64

    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(answer["map"]["png"]), np.uint8), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(pixels, localizer(png()).map)
    assert sum(answer["map"]["histogram"]) == 64 * 64


def test_segment(service, localizer):
    from lidcam_rt import CamSegmenter

    expected = CamSegmenter(localizer)(png("blue"))
    answer = call(service, "POST", "/v1/segment", content=png("blue"), params={"mask": 1}).json()
    assert [entry["class_name"] for entry in answer["classes"]] == ["blue"]
    assert np.array_equal(mask_of(answer["classes"][0]), expected.labels == 3)
    labels = call(service, "POST", "/v1/segment", content=png("blue"), params={"form": "labels"})
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(labels.content))), expected.labels)


@pytest.mark.parametrize(
    ("status", "kind", "options"),
    [
        (413, "too_large", {"content": b"x" * 300_001}),
        (422, "unprocessable", {"content": b"no picture"}),
        (422, "unprocessable", {"content": b""}),
        (422, "unprocessable", {"content": bomb()}),
        (422, "unprocessable", {"content": png()[:-40]}),
        (422, "unprocessable", {"content": png(), "params": {"top_k": "3"}}),
        (422, "unprocessable", {"content": png(), "params": {"top_k": "x"}}),
        (422, "unprocessable", {"content": png(), "params": {"labels": "purple"}}),
        (422, "unprocessable", {"content": png(), "params": {"labels": "9"}}),
        (422, "unprocessable", {"content": png(), "params": {"refine": "../x"}}),
        (422, "unprocessable", {"content": png(), "params": {"form": "exe"}}),
        (422, "unprocessable", {"content": png(), "params": {"path": "/etc/passwd"}}),
        (422, "unprocessable", {"content": b"/etc/passwd"}),
        (422, "unprocessable", {"content": b"http://127.0.0.1/x.png"}),
        (404, "not_found", {"content": png(), "params": {"model": "other"}}),
        (404, "not_found", {"content": png(), "params": {"version": "9"}}),
        (415, "unsupported_media", {"content": png(), "headers": {"content-type": "text/html"}}),
        (415, "unsupported_media", {"content": png(), "headers": {"content-encoding": "gzip"}}),
        (400, "bad_request", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
        (400, "bad_request", {"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}),
        (
            400,
            "bad_request",
            {"data": {"top_k": "1"}, "files": {}, "headers": {"content-type": "multipart/form-data; boundary=b"}},
        ),
        (403, "forbidden", {"content": png(), "headers": {"origin": "http://elsewhere"}}),
    ],
)
def test_what_is_refused(service, model, status, kind, options):
    answer = call(service, "POST", "/v1/localize", **options)
    assert (answer.status_code, answer.json()["kind"]) == (status, kind), answer.text
    for secret in (str(model), str(model.parent), "Traceback", "site-packages", "strict=False", "pip install"):
        assert secret not in answer.text
    # and the server goes on
    assert call(service, "POST", "/v1/localize", content=png()).status_code == 200


def test_a_body_in_chunks_is_measured_too(service):
    async def chunks():
        for _ in range(40):
            yield b"x" * 10_000

    async def post(client):
        return await client.post("/v1/localize", content=chunks())

    assert together(service, post).status_code == 413
    assert service.bodies.held == 0


def test_an_engine_that_fails_tells_the_log_and_not_the_client(model, monkeypatch, caplog):
    from lidcam_rt.errors import BackendError

    with hosting(model) as service:

        def fail(*arguments):
            raise BackendError("/secret/path: out of memory")

        monkeypatch.setattr(service.models.all()[0].batcher.pipeline, "run", fail)
        answer = call(service, "POST", "/v1/localize", content=png(), headers={"x-request-id": "abc-1"})
        assert answer.status_code == 500 and "secret" not in answer.text
        assert answer.headers["x-request-id"] == answer.json()["request_id"] == "abc-1"
        told = [record.fields for record in caplog.records if record.levelname == "ERROR"]
        assert "/secret/path" in told[0]["reason"] and told[0]["request_id"] == "abc-1"
        text = call(service, "GET", "/metrics").text
        assert 'lidcam_errors_total{kind="internal"} 1.0' in text


class Gate:
    """Holds the network of a service until the test lets it go."""

    def __init__(self, service, monkeypatch):
        self.began, self.go, self.runs = threading.Semaphore(0), threading.Semaphore(0), 0
        pipeline = service.models.all()[0].batcher.pipeline
        run = pipeline.run

        def held(*arguments):
            self.runs += 1
            self.began.release()
            assert self.go.acquire(timeout=300)
            return run(*arguments)

        monkeypatch.setattr(pipeline, "run", held)


def test_a_full_queue_is_429_with_retry_after(model, monkeypatch):
    with hosting(model, queue=2) as service:
        gate = Gate(service, monkeypatch)
        batcher = service.models.all()[0].batcher

        async def overload(client):
            def post():
                return asyncio.create_task(client.post("/v1/localize", content=png()))

            accepted = [post() for _ in range(batcher.parallel)]
            for _ in accepted:
                await asyncio.to_thread(gate.began.acquire, timeout=300)
            accepted += [post(), post()]
            while batcher.waiting < 2:
                await asyncio.sleep(0.001)
            refused = [await client.post("/v1/localize", content=png()) for _ in range(3)]
            gate.go.release(100)
            return refused, await asyncio.gather(*accepted)

        refused, accepted = together(service, overload)
        assert [answer.status_code for answer in refused] == [429] * 3
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        assert {answer.status_code for answer in accepted} == {200}


def test_a_deadline_is_504_and_what_was_waiting_is_dropped(model, monkeypatch):
    with hosting(model, deadline=0.3) as service:
        gate = Gate(service, monkeypatch)
        batcher = service.models.all()[0].batcher

        async def late(client):
            return await asyncio.gather(*(client.post("/v1/localize", content=png()) for _ in range(6)))

        answers = together(service, late)
        assert {answer.status_code for answer in answers} == {504}
        began = gate.runs
        assert began <= batcher.parallel
        gate.go.release(100)
        while batcher.waiting:
            threading.Event().wait(0.001)
        assert gate.runs == began  # the rest never reached the network
        text = call(service, "GET", "/metrics").text
        assert 'lidcam_errors_total{kind="deadline"} 6.0' in text and "lidcam_dropped_total" in text


def test_what_a_client_left_behind_never_reaches_the_network(model, monkeypatch):
    with hosting(model) as service:
        gate = Gate(service, monkeypatch)
        batcher = service.models.all()[0].batcher
        app, data = build_app(service), png()

        async def leave(client):
            busy = [asyncio.create_task(client.post("/v1/localize", content=data)) for _ in range(batcher.parallel)]
            for _ in busy:
                await asyncio.to_thread(gate.began.acquire, timeout=300)
            gone, sent = asyncio.Event(), []
            messages = iter([{"type": "http.request", "body": data, "more_body": False}])

            async def receive():
                if (message := next(messages, None)) is not None:
                    return message
                await gone.wait()
                return {"type": "http.disconnect"}

            async def send(message):
                sent.append(message)

            scope = {
                "type": "http", "http_version": "1.1", "method": "POST", "path": "/v1/localize", "raw_path": b"",
                "query_string": b"", "headers": [], "scheme": "http", "server": ("x", 80), "root_path": "",
            }  # fmt: skip
            leaving = asyncio.create_task(app(scope, receive, send))
            while not batcher.waiting:
                await asyncio.sleep(0.001)
            gone.set()
            await leaving
            gate.go.release(100)
            answers = await asyncio.gather(*busy)
            return answers, sent

        answers, sent = together(service, leave)
        assert [answer.status_code for answer in answers] == [200] * batcher.parallel and not sent
        while batcher.waiting:
            threading.Event().wait(0.001)
        assert gate.runs == batcher.parallel
        assert 'lidcam_errors_total{kind="client_gone"} 1.0' in call(service, "GET", "/metrics").text


def test_a_model_that_a_request_holds_is_not_closed_by_a_reload(model, tmp_path):
    path = artifacts.build(tmp_path / "m.onnx", theta=0.6)
    with hosting(path) as service:
        models = service.models
        with models.lent("tiny") as old:
            path.write_bytes(model.read_bytes())
            assert models.reload() == {"tiny:1": "loaded"} and models.get("tiny") is not old
            (retiring,) = models._retiring
            retiring.join(0.3)  # it has nothing to wait for but this request
            assert not old.batcher._closed and not old.loaded.closed
        retiring.join(300)
        assert old.loaded.closed


def test_a_token(model):
    with hosting(model, token="correct horse") as service:
        for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Basic correct horse"}):
            for method, url in (("POST", "/v1/localize"), ("GET", "/metrics"), ("GET", "/v2/models/tiny")):
                answer = call(service, method, url, headers=headers)
                assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        for url in ("/", "/v2/health/live", "/v2/health/ready", "/openapi.json"):
            assert call(service, "GET", url).status_code == 200
        right = {"authorization": "Bearer correct horse"}
        assert call(service, "POST", "/v1/localize", content=png(), headers=right).status_code == 200


def test_drain_takes_readiness_away(model):
    with hosting(model) as service:
        assert call(service, "GET", "/readyz").status_code == 200
        service.draining = True
        assert call(service, "GET", "/readyz").status_code == 503
        assert call(service, "GET", "/healthz").status_code == 200


def test_the_document_names_every_address(service):
    app = build_app(service)
    routes = {(route.path, m.lower()) for route in app._app.routes for m in route.methods if m != "HEAD"}
    routes -= {(path, "get") for path in ("/", "/docs", "/static/{name}")}
    paths = document()["paths"]
    assert routes == {(path, method) for path, methods in paths.items() for method in methods}
    text = call(service, "GET", "/openapi.json").text
    for reference in set(json_references(json.loads(text))):
        node = json.loads(text)
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def json_references(node):
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for value in node.values():
            yield from json_references(value)
    elif isinstance(node, list):
        for value in node:
            yield from json_references(value)


def test_every_stage_is_measured(service):
    call(service, "POST", "/v1/localize", content=png(), params={"refine": "psa"})
    text = call(service, "GET", "/metrics").text
    for stage in ("decode", "preprocess", "network", "maps", "crf", "boxes"):
        assert f'lidcam_stage_seconds_count{{model="tiny",stage="{stage}"}}' in text
    assert 'lidcam_batch_rows_bucket{le="1.0",model="tiny"}' in text and 'lidcam_queue_rows{model="tiny"} 0.0' in text


def test_spans_follow_the_clients_trace(service, monkeypatch):
    sdk = pytest.importorskip("opentelemetry.sdk.trace", reason="opentelemetry-sdk is not installed")
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    from lidcam_serve import tracing

    spans, provider = InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    monkeypatch.setattr(tracing._trace, "get_tracer", provider.get_tracer)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    call(service, "POST", "/v1/localize", content=png(), headers={"traceparent": parent})
    (span,) = spans.get_finished_spans()
    assert span.context.trace_id == 0x0AF7651916CD43DD8448EB211C80319C
    assert span.attributes["http.route"] == "/v1/localize" and span.attributes["http.response.status_code"] == 200
