"""Writes a static site from an artifact."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lidcam_rt.artifact import Manifest, read_manifest
from lidcam_rt.errors import ArtifactError, InputError, OutputError
from lidcam_rt.files import read_file, replacing
from lidcam_rt.image import MAX_PIXELS
from lidcam_serve.described import describe_manifest
from lidcam_serve.options import model_name
from lidcam_serve.web import package, texts
from lidcam_serve.web.check import expected

__all__ = ["SiteOptions", "write_site"]

_HERE = Path(__file__).parent
#: The page's own files, which `lidcam serve` serves too, and those that take the server's place.
_PAGE = tuple(_HERE.parent / "page" / name for name in ("page.css", "page.js", "pas.js"))
_BROWSER = tuple(_HERE / "js" / f"{name}.js" for name in ("browser", "worker", "check", "picture", "resize", "result"))
_MODEL = "model.json"
_KEY = "lidcam_site"


@dataclass(frozen=True, slots=True)
class SiteOptions:
    """What a site is made of.

    Attributes:
        name: name of the model on the page; empty: the file's name.
        webgpu: whether the site can use WebGPU, for which it carries a second build of ONNX Runtime (27 MB).
        ort: folder or archive of onnxruntime-web; None: it is fetched by npm.
        max_pixels: pictures with more pixels are refused.
    """

    name: str = ""
    webgpu: bool = True
    ort: Path | None = None
    max_pixels: int = MAX_PIXELS


def write_site(model: Path, output: Path, options: SiteOptions) -> dict[str, int]:
    """Write the site; all of it or nothing. An earlier site in the same folder is replaced.

    Args:
        model: an artifact of task localization or multilabel. It is copied as it is.
        output: the folder.
        options: what the site is made of.

    Returns:
        The files by path in the folder, with their sizes in bytes.

    Raises:
        ArtifactError: the artifact cannot be used.
        BackendError: onnxruntime-web cannot be fetched.
        InputError: it is a segmentation network, or `options.ort` is not the package.
        OutputError: the folder holds other files, cannot be written, or another process is writing it.
    """
    name = model_name(options.name, model)
    manifest = _checked(model)
    outputs = expected(str(model))
    with replacing(output) as made:
        _refuse_foreign(output)
        made.mkdir()
        webgpu = options.webgpu and manifest.arithmetic != "int8"  # WebGPU supports almost nothing of int8
        names = package.WASM_FILES + (package.WEBGPU_FILES if webgpu else ())
        if options.ort is not None:
            library = package.from_path(names, options.ort)
        else:
            scratch = made / "npm"
            scratch.mkdir()
            library = package.from_npm(names, scratch)
            for entry in scratch.iterdir():
                entry.unlink()
            scratch.rmdir()
        artifact = read_file(model)
        files = {f"static/ort/{entry}": data for entry, data in library.items()}
        files["static/ort/LICENSE"] = texts.ORT_LICENSE.replace("@VERSION@", package.VERSION).encode()
        files |= {f"static/{path.name}": read_file(path) for path in (*_PAGE, *_BROWSER)}
        files["index.html"] = _index().encode()
        files[f"{name}.onnx"] = artifact
        files["README.md"] = texts.README.replace("@NAME@", name).replace("@MODEL@", f"{name}.onnx").encode()
        about = _about(name, manifest, artifact, webgpu, options.max_pixels) | {"expected": outputs}
        listed = {_KEY: 1, "model": about, "files": sorted((*files, _MODEL))}
        files[_MODEL] = (json.dumps(listed, indent=1) + "\n").encode()
        for path, data in files.items():
            (made / path).parent.mkdir(parents=True, exist_ok=True)
            (made / path).write_bytes(data)
    return {path: len(files[path]) for path in sorted(files)}


def _checked(model: Path) -> Manifest:
    """The manifest of an artifact of a classifier."""
    if model.suffix != ".onnx":
        raise ArtifactError(f"{model}: is not an .onnx file. Give the artifact that the engine was built from")
    manifest = read_manifest(model)
    if manifest.task == "segmentation":
        raise InputError(
            f"{model} is a segmentation network, and the page shows the maps of classifiers. Serve it with "
            "`lidcam serve` (POST /v1/segment), or give a classifier"
        )
    return manifest


def _refuse_foreign(output: Path) -> None:
    """Raise OutputError unless the folder is missing, empty, or holds an earlier site and nothing else."""
    if not output.exists():
        return
    if not output.is_dir():
        raise OutputError(f"{output}: is a file, a folder is needed. Choose another name")
    files = (path for path in output.rglob("*") if path.is_symlink() or not path.is_dir())
    there = {path.relative_to(output).as_posix() for path in files}
    try:
        listed = json.loads((output / _MODEL).read_bytes())
        ours = set(listed["files"]) if listed[_KEY] else set()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        ours = set()
    if foreign := sorted(there - ours):
        raise OutputError(f"{output}: holds other files ({foreign[0]}). Choose another folder, or remove them")


def _index() -> str:
    page = (_HERE.parent / "page" / "index.html").read_text(encoding="utf-8")
    policy = f'<meta http-equiv="Content-Security-Policy" content="{texts.POLICY}">'
    for old, new in (
        ('<meta charset="utf-8">', f'<meta charset="utf-8">\n{policy}'),
        ("static/server.js", "static/browser.js"),
        ('aria-live="polite"></p>', f'aria-live="polite">{texts.BEFORE_SCRIPTS}</p>'),
    ):
        assert page.count(old) == 1, f"index.html has no {old}"
        page = page.replace(old, new)
    return page


def _about(name: str, manifest: Manifest, artifact: bytes, webgpu: bool, max_pixels: int) -> dict[str, Any]:
    return {
        "name": name,
        "version": "1",
        **describe_manifest(manifest),
        "input": manifest.input.model_dump(mode="json"),
        "precision": manifest.arithmetic,
        "file": f"{name}.onnx",
        "megabytes": round(len(artifact) / 1e6, 1),
        "sha256": hashlib.sha256(artifact).hexdigest(),
        "max_pixels": max_pixels,
        "webgpu": webgpu,
    }
