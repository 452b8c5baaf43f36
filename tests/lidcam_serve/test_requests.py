"""What a request may say, and what is refused instead of being passed over."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading

import artifacts
import numpy as np
import pytest
from servers import png
from test_app import call, hosting, together

from lidcam_serve import logs
from lidcam_serve.errors import BadRequest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return artifacts.build(tmp_path_factory.mktemp("top2") / "tiny.onnx", top_k=2)


@pytest.fixture(scope="module")
def service(model):
    with hosting(model) as running:
        yield running


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("image/png", "image/png"),
        ("IMAGE/PNG", "image/png"),
        ("image/*", "image/png"),
        ("image/webp, image/png;q=0.9", "image/png"),
        ("image/png, */*;q=0.5", "image/png"),
        ("application/json, image/png;q=0.1", "application/json"),
        ("image/png;q=0, */*", "application/json"),
        ("image/png;q=x", "application/json"),
        ("*/*", "application/json"),
        ("text/html, ;;q=,", "application/json"),
        ("", "application/json"),
    ],
)
def test_the_form_that_the_client_prefers(service, accept, kind):
    for url in ("/v1/localize", "/v1/segment"):
        answer = call(service, "POST", url, content=png(), headers={"accept": accept})
        assert (answer.status_code, answer.headers["content-type"]) == (200, kind)


def form(*parts: tuple[str, bytes], end: bytes = b"--b--\r\n") -> dict:
    lines = [b"--b\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + data for head, data in parts]
    body = b"\r\n".join([*lines, end])
    return {"content": body, "headers": {"content-type": "multipart/form-data; boundary=b"}}


PICTURE = ('name="image"; filename="a.png"', png())


@pytest.mark.parametrize(
    ("status", "told", "options"),
    [
        (422, "labels is given twice", {"content": png(), "params": [("labels", "1"), ("labels", "2")]}),
        (422, "top_k is given twice", form(PICTURE, ('name="top_k"', b"2"), ('name="top_k"', b"1"))),
        (422, "top_k is given twice", {**form(PICTURE, ('name="top_k"', b"2")), "params": {"top_k": "1"}}),
        (400, "one picture", form(PICTURE, ('name="other"; filename="b.png"', png()))),
        (400, "last boundary is missing", form(PICTURE, ('name="mask"', b"1"), end=b"")),
        (403, "other sites", {"content": png(), "headers": {"origin": "http://["}}),
        (403, "other sites", {"content": png(), "headers": {"origin": "null"}}),
    ],
)
def test_what_is_ambiguous_or_damaged_is_refused(service, status, told, options):
    answer = call(service, "POST", "/v1/localize", **options)
    assert answer.status_code == status and told in answer.json()["error"]


def test_a_form_as_it_should_be(service):
    answer = call(service, "POST", "/v1/localize", **form(PICTURE, ('name="top_k"', b"2")))
    assert answer.status_code == 200 and len(answer.json()["others"]) == 1


def test_the_identity_coding_is_none(service):
    for coding in ("identity", "Identity", " identity ", ""):
        headers = {"content-encoding": coding}
        assert call(service, "POST", "/v1/localize", content=png(), headers=headers).status_code == 200


def test_a_label_map_takes_no_top_k(service):
    answer = call(service, "POST", "/v1/segment", content=png(), params={"top_k": "2"})
    assert answer.status_code == 422 and "top_k is an option of /v1/localize" in answer.json()["error"]


@pytest.mark.parametrize(("method", "url"), [("GET", "/v1/localize"), ("OPTIONS", "/v1/localize"), ("PUT", "/metrics")])
def test_another_method_is_refused_as_all_is(service, method, url):
    answer = call(service, method, url)
    allowed = {"/v1/localize": "POST", "/metrics": "GET, HEAD"}[url]
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json()["kind"] == "wrong_method" and allowed in answer.json()["error"]
    assert call(service, "HEAD", "/metrics").status_code == 200


def test_libraries_log_as_json_too(capsys):
    """A damaged form made python_multipart write a line of text between those of JSON."""
    names = ("lidcam_serve", "lidcam_rt", "uvicorn.error", "python_multipart", "")
    before = [(logging.getLogger(n), logging.getLogger(n).handlers[:], logging.getLogger(n).level) for n in names]
    try:
        logs.configure(quiet=False)
        logging.getLogger("asyncio").error("a task ended")
        logging.getLogger("python_multipart.multipart").warning("each damaged form")
        lines = capsys.readouterr().err.splitlines()
        assert [json.loads(line)["event"] for line in lines] == ["a task ended"]
    finally:
        logging.captureWarnings(False)
        for logger, handlers, level in before:
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = True


IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1, 64, 64, 3], "data": [0] * (64 * 64 * 3)}
FILE = {"name": "picture", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(png()).decode()]}
LABELS = {"name": "labels", "datatype": "INT64", "shape": [1, 1], "data": [2]}
LOGITS = {"name": "logits"}


def infer(service, name: str, **request):
    return call(service, "POST", f"/v2/models/{name}/infer", content=json.dumps(request).encode())


@pytest.mark.parametrize(
    ("name", "request_", "told"),
    [
        ("tiny", {"inputs": [IMAGE, IMAGE]}, "'image' is given twice"),
        ("tiny", {"inputs": [IMAGE], "outputs": [LOGITS, LOGITS]}, "an output is requested twice"),
        (
            "tiny",
            {"inputs": [IMAGE], "outputs": [LOGITS | {"parameters": {"classification": 2}}]},
            "classification is not supported",
        ),
        (
            "tiny",
            {"inputs": [IMAGE], "outputs": [LOGITS | {"parameters": {"shared_memory_region": "x"}}]},
            "shared_memory_region is not supported",
        ),
        ("tiny", {"inputs": [{k: v for k, v in IMAGE.items() if k != "data"}]}, "shared memory is not supported"),
        ("tiny_pictures", {"inputs": [FILE], "parameters": {"refin": "psa"}}, "unknown parameter 'refin'"),
        ("tiny_pictures", {"inputs": [FILE], "parameters": {"sequence_id": 3}}, "unknown parameter 'sequence_id'"),
        ("tiny_pictures", {"inputs": [FILE], "parameters": {"timeout": 0}}, "timeout must be"),
        ("tiny_pictures", {"inputs": [FILE, LABELS], "parameters": {"top_k": 2}}, "top_k is for predicted classes"),
    ],
)
def test_tensors_are_asked_for_once_and_in_forms_that_are_given(service, name, request_, told):
    answer = infer(service, name, **request_)
    assert answer.status_code in (400, 422) and told in answer.json()["error"]
    assert infer(service, "tiny", inputs=[IMAGE], outputs=[LOGITS], parameters={"priority": 1}).status_code == 200


def test_a_timeout_of_the_client_is_its_deadline(service):
    answer = infer(service, "tiny_pictures", inputs=[FILE], parameters={"timeout": 1})
    assert answer.status_code == 504


def test_a_length_of_many_digits_is_refused(service):
    headers = {"inference-header-content-length": "0" * 5000}
    answer = call(service, "POST", "/v2/models/tiny/infer", content=b"{}", headers=headers)
    assert answer.status_code == 400


def test_numbers_that_are_none_are_the_clients_fault(tmp_path):
    path = artifacts.build(tmp_path / "tiny.onnx", dtype="float32")
    with hosting(path) as service:
        for value in ("NaN", "Infinity", "1e39", "-1e400"):
            data = ",".join([value] * (3 * 64 * 64))
            body = f'{{"inputs":[{{"name":"image","datatype":"FP32","shape":[1,3,64,64],"data":[{data}]}}]}}'
            answer = call(service, "POST", "/v2/models/tiny/infer", content=body.encode())
            assert answer.status_code in (400, 422), value
        image = IMAGE | {"datatype": "FP32", "shape": [1, 3, 64, 64]}
        assert infer(service, "tiny", inputs=[image], outputs=[LOGITS]).status_code == 200


def test_pictures_of_one_request_share_the_limit_of_pixels(service):
    """Each is within it, but their masks and maps are held together."""
    white = np.full((600, 1000, 3), 255, np.uint8)
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(white).save(out, "png")
    text = base64.b64encode(out.getvalue()).decode()
    one, two = (FILE | {"shape": [n], "data": [text] * n} for n in (1, 2))
    assert infer(service, "tiny_pictures", inputs=[one]).status_code == 200
    answer = infer(service, "tiny_pictures", inputs=[two])
    assert answer.status_code == 422 and "pixels in total" in answer.json()["error"]


def test_a_refusal_gives_no_advice_for_those_who_run_the_server(service):
    for options in ({"refine": "nothing"}, {"top_k": "9"}, {"labels": "0,1,2"}):
        answer = call(service, "POST", "/v1/localize", content=png(), params=options)
        assert answer.status_code == 422
        for advice in ("export", "CrfOptions"):
            assert advice not in answer.text


def test_what_a_refused_request_had_is_let_go_at_once(service, monkeypatch):
    """Not at the next collection, before which thousands of bodies may come."""
    import gc
    import weakref

    from lidcam_serve import app

    bodies = []

    def judge(body, header):
        bodies.append(weakref.ref(holder := Holder(body)))
        raise BadRequest(f"refused {len(holder.body)}")

    class Holder:
        def __init__(self, body):
            self.body = body

    monkeypatch.setattr(app, "json_length", judge)
    gc.collect()
    gc.disable()
    try:
        assert infer(service, "tiny", inputs=[IMAGE]).status_code == 400
        assert [reference() for reference in bodies] == [None]
    finally:
        gc.enable()


def test_large_json_is_read_one_at_a_time(service, monkeypatch):
    """It takes ten times its size meanwhile."""
    from lidcam_serve import app

    at_once, most, lock = 0, 0, threading.Lock()
    decode = app.decode

    def counted(*arguments):
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.05)
        try:
            return decode(*arguments)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr(app, "decode", counted)
    monkeypatch.setattr(app, "_LARGE", 1000)
    body = json.dumps({"inputs": [IMAGE], "outputs": [LOGITS]}).encode()

    async def send(client):
        posts = [client.post("/v2/models/tiny/infer", content=body) for _ in range(4)]
        return await asyncio.gather(*posts)

    assert [answer.status_code for answer in together(service, send)] == [200] * 4
    assert most == 1
