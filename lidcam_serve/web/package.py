"""onnxruntime-web, from the npm registry or from the user's copy; files with unexpected content are refused."""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import zlib
from pathlib import Path

from lidcam_rt.errors import BackendError, InputError
from lidcam_rt.files import read_file

__all__ = ["VERSION", "WASM_FILES", "WEBGPU_FILES", "from_npm", "from_path"]

VERSION = "1.30.0"
_NAME = f"onnxruntime-web@{VERSION}"
#: Of the package's dist folder: WebAssembly with SIMD and, on pages that are isolated, threads.
WASM_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
#: What WebGPU needs beside it.
WEBGPU_FILES = ("ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm")
#: SHA-256 of the files of `VERSION`, whose package has the integrity
#: sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ== in the registry.
SHA256 = {
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    "ort.webgpu.min.mjs": "3dffff71811bc13a3a3d9591c57ca5ee5735b8f5f3eaf789510b02bb040ae3a0",
    "ort-wasm-simd-threaded.asyncify.mjs": "3d1c85995364bb643302fc6fd877a0c3ba5ae72401815e0f24828a53d9191e28",
    "ort-wasm-simd-threaded.asyncify.wasm": "39f9f0894d478800487ed9f7dbe92618498db320cf55c8e3d89adff8dce658da",
}
_SECONDS = 600
_BY_HAND = f"give the package with --ort, as its folder or .tgz: {_NAME} from npmjs.com"


def from_npm(names: tuple[str, ...], scratch: Path) -> dict[str, bytes]:
    """Files of the package from the registry that npm is configured for.

    Args:
        names: of the files.
        scratch: a folder to download into.

    Returns:
        Their contents by name.

    Raises:
        BackendError: npm is missing, or cannot fetch the package.
        InputError: a file is not that of version `VERSION`.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise BackendError(f"npm, which fetches onnxruntime-web, is not installed. Install it, or {_BY_HAND}")
    command = [npm, "pack", _NAME, "--pack-destination", str(scratch.resolve()), "--ignore-scripts", "--loglevel=error"]
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"npm could not fetch {_NAME} ({error}). Try again, or {_BY_HAND}") from None
    packed = sorted(scratch.glob("*.tgz"))
    if done.returncode != 0 or not packed:
        reason = "; ".join(line.strip() for line in done.stderr.splitlines()[:3] if line.strip())
        raise BackendError(
            f"npm could not fetch {_NAME} ({reason[:300] or f'status {done.returncode}'}). Try again, or {_BY_HAND}"
        )
    return from_path(names, packed[0])


def from_path(names: tuple[str, ...], path: Path) -> dict[str, bytes]:
    """Files of the package from its folder (as in node_modules) or its archive.

    Raises:
        InputError: it is neither, or a file is missing or not that of version `VERSION`.
    """
    try:
        files = _of_folder(names, path) if path.is_dir() else _of_archive(names, path)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise InputError(
            f"{path}: onnxruntime-web cannot be read ({error}). Give {_NAME}: its folder or .tgz"
        ) from None
    for name in names:
        if name not in files:
            raise InputError(f"{path}: has no dist/{name}. Give {_NAME}: its complete folder or .tgz")
        if hashlib.sha256(files[name]).hexdigest() != SHA256[name]:
            raise InputError(
                f"{path}: dist/{name} is not from version {VERSION}, or damaged. Give {_NAME}, or leave out --ort"
            )
    return files


def _of_folder(names: tuple[str, ...], folder: Path) -> dict[str, bytes]:
    return {name: read_file(folder / "dist" / name) for name in names if (folder / "dist" / name).exists()}


def _of_archive(names: tuple[str, ...], path: Path) -> dict[str, bytes]:
    files = {}
    with tarfile.open(fileobj=io.BytesIO(read_file(path)), mode="r:gz") as archive:
        for member in archive:
            name = member.name.removeprefix("package/dist/")
            if name in names and member.isfile() and (content := archive.extractfile(member)) is not None:
                files[name] = content.read()
    return files
