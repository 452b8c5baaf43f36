"""The OpenAPI document of the HTTP endpoints."""

from __future__ import annotations

from typing import Any

from lidcam_rt.version import __version__

__all__ = ["document"]

_ERRORS = {
    "400": "The request does not follow the protocol.",
    "401": "A bearer token is needed.",
    "404": "No such model or version.",
    "405": "The endpoint accepts other methods; the header Allow lists them.",
    "408": "The body did not arrive in time.",
    "413": "The body is over the limit.",
    "415": "The body's type or encoding is not supported.",
    "422": "The picture or an option is refused; the text says why.",
    "429": "The queue is full. The header Retry-After says in how many seconds it may have room.",
    "504": "The deadline passed.",
}
_BOX = {
    "type": ["array", "null"],
    "items": {"type": "integer"},
    "minItems": 4,
    "maxItems": 4,
    "description": "x0, y0, x1, y1 in pixels of the upright picture; x1 and y1 are one past the last pixel. null: the "
    "mask is empty.",
}
#: What every answer about a picture begins with.
_HEAD: dict[str, Any] = {
    "model": {"type": "string"},
    "version": {"type": "string"},
    "request_id": {"type": "string"},
    "width": {"type": "integer"},
    "height": {"type": "integer"},
}
_RLE = {
    "type": "object",
    "description": "A mask as COCO's compressed run lengths.",
    "properties": {"size": {"type": "array", "items": {"type": "integer"}}, "counts": {"type": "string"}},
}
_CLASS = {
    "type": "object",
    "properties": {
        "class_id": {"type": "integer"},
        "class_name": {"type": "string"},
        "score": {"type": "number", "minimum": 0, "maximum": 1},
    },
}
_MAP = {
    "type": "object",
    "properties": {
        "png": {"type": "string", "description": "The 8-bit localization map at the picture's size, a PNG in base64."},
        "histogram": {
            "type": "array",
            "items": {"type": "integer"},
            "description": "How often each of the 256 values occurs in the network's map, for PaS's percentile.",
        },
    },
}


def document() -> dict[str, Any]:
    """The document, as plain values."""
    paths: dict[str, Any] = {
        "/v1/localize": {
            "post": _picture(
                "Localize the main object of a picture",
                "Localization",
                ("json", "overlay", "mask", "map"),
                "By default JSON; with `Accept: image/png` the overlay.",
            )
        },
        "/v1/segment": {
            "post": _picture(
                "Make a label map of a picture",
                "Segmentation",
                ("json", "overlay", "labels"),
                "By default JSON; with `Accept: image/png` the overlay. A classifier's label map comes from its maps.",
                "top_k",
            )
        },
        "/v1/models": {"get": _plain("The models, their classes and the server's limits")},
        "/v2": {"get": _plain("Open Inference Protocol: the server")},
        "/v2/health/live": {"get": _plain("The process is alive")},
        "/v2/health/ready": {"get": _plain("The server accepts requests; 503 while it drains")},
        "/healthz": {"get": _plain("As /v2/health/live")},
        "/readyz": {"get": _plain("As /v2/health/ready")},
        "/metrics": {"get": _plain("Metrics in Prometheus's text format")},
        "/openapi.json": {"get": _plain("This document")},
        "/v2/repository/index": {"post": _plain("The models and their states")},
        "/v2/repository/models/{model}/load": {
            "post": _plain("Reload a model from its file, if that has changed", "model")
        },
        "/v2/repository/models/{model}/unload": {"post": _plain("Always refused", "model")},
    }
    for prefix, names in (
        ("/v2/models/{model}", ("model",)),
        ("/v2/models/{model}/versions/{version}", ("model", "version")),
    ):
        paths[prefix] = {"get": _plain("Inputs and outputs of a model", *names)}
        paths[prefix + "/ready"] = {"get": _plain("The model accepts requests", *names)}
        paths[prefix + "/infer"] = {"post": _plain("Tensors in, tensors out, as JSON or with raw tensors", *names)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "lidcam serve", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "security": [{}, {"token": []}],
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Localization": _localization(), "Segmentation": _segmentation(), "Error": _error()},
            "responses": {
                status: {
                    "description": text,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
                }
                for status, text in _ERRORS.items()
            },
        },
    }


def _plain(summary: str, *names: str) -> dict[str, Any]:
    out: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "Done."}}}
    if names:
        out["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return out


def _picture(summary: str, schema: str, forms: tuple[str, ...], form: str, *left_out: str) -> dict[str, Any]:
    options: list[tuple[str, dict[str, Any], str]] = [
        ("model", {"type": "string"}, "Name of a model; by default the server's first."),
        ("version", {"type": "string"}, "By default the newest."),
        (
            "labels",
            {"type": "string"},
            "Classes, by name or number, separated by commas; by default the predicted ones.",
        ),
        ("top_k", {"type": "integer", "minimum": 1, "default": 1}, "How many predicted classes to localize."),
        ("refine", {"type": "string"}, "Dense CRF: psa, irn, deeplab, example, psa@original and so on, or none."),
        ("mask", {"type": "boolean"}, "Include the mask, as COCO run lengths."),
        ("map", {"type": "boolean"}, "Include the map, as a PNG."),
        ("form", {"type": "string", "enum": list(forms)}, form),
    ]
    options = [entry for entry in options if entry[0] not in left_out]
    binary = {"schema": {"type": "string", "format": "binary"}}
    form_schema = {
        "type": "object",
        "required": ["image"],
        "properties": {
            "image": {"type": "string", "format": "binary"},
            **{name: {**kind, "description": text} for name, kind, text in options},
        },
    }
    return {
        "summary": summary,
        "description": "The picture is the body, or the file in a form whose other fields are options.",
        "parameters": [
            {"name": name, "in": "query", "schema": kind, "description": text} for name, kind, text in options
        ],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": binary,
                "application/octet-stream": binary,
                "multipart/form-data": {"schema": form_schema},
            },
        },
        "responses": {
            "200": {
                "description": "The result.",
                "content": {
                    "application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}},
                    "image/png": binary,
                },
            },
            **{status: {"$ref": f"#/components/responses/{status}"} for status in _ERRORS},
        },
    }


def _localization() -> dict[str, Any]:
    one = {
        **_CLASS["properties"],  # type: ignore[dict-item]
        "box": _BOX,
        "mask_pixels": {"type": "integer"},
        "threshold": {"type": "number", "description": "The mask is where the map is above it, 0 to 255."},
        "mask": _RLE,
        "map": _MAP,
        "unrefined": {"type": "object", "description": "The same before the CRF."},
    }
    return {
        "type": "object",
        "properties": {
            **_HEAD,
            **one,
            "topk": {"type": "array", "items": _CLASS, "description": "The best classes, best first."},
            "others": {"type": "array", "items": {"type": "object", "properties": one}},
            "crf": {"type": "object"},
            "engine": {"type": "string"},
        },
    }


def _segmentation() -> dict[str, Any]:
    entry = {
        "label": {"type": "integer"}, "pixels": {"type": "integer"}, **_CLASS["properties"], "mask": _RLE,  # type: ignore[dict-item]
    }  # fmt: skip
    return {
        "type": "object",
        "properties": {
            **_HEAD,
            "classes": {"type": "array", "items": {"type": "object", "properties": entry}},
            "labels_png": {"type": "string", "description": "With map=1: the label map, a grey PNG in base64."},
        },
    }


def _error() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"error": {"type": "string"}, "kind": {"type": "string"}, "request_id": {"type": "string"}},
    }
