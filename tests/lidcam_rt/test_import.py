from __future__ import annotations

import subprocess
import sys

HEAVY = [
    *("torch", "cuda", "tensorrt", "cv2", "onnxruntime", "onnx"),
    *("pydantic", "matplotlib", "PIL", "numpy", "typer", "rich"),
]


def loaded(code: str) -> set[str]:
    program = f"import sys\n{code}\nprint(' '.join(n for n in {HEAVY!r} if n in sys.modules))"
    return set(
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
    )


def test_import_is_light():
    assert loaded("import lidcam_rt; lidcam_rt.__version__; dir(lidcam_rt)") == set()


def test_the_runtime_needs_no_torch(model, tmp_path):
    code = (
        "import numpy as np, lidcam_rt\n"
        f"with lidcam_rt.load({str(model)!r}) as l:\n"
        "    r = l(np.zeros((20, 30, 3), np.uint8))\n"
        f"    r.save({str(tmp_path)!r}); list(l.stream([r.image]))"
    )
    assert not loaded(code) & {"torch", "cuda", "tensorrt", "onnx", "matplotlib", "typer", "rich"}


def test_every_public_name_is_there():
    import lidcam_rt

    for name in lidcam_rt.__all__:
        assert getattr(lidcam_rt, name) is not None


def test_submodules_are_there_after_a_plain_import():
    code = (
        "import lidcam_rt\n"
        "assert lidcam_rt.errors.InputError and 'lidcam_rt.crf' not in sys.modules\n"
        "lidcam_rt.crf.Refine('psa'), lidcam_rt.pas.pas, lidcam_rt.boxes.largest_box\n"
        "try: lidcam_rt.nothing\n"
        "except AttributeError: pass"
    )
    assert not loaded(code) & {"torch", "cuda", "tensorrt", "onnxruntime", "cv2", "PIL"}
    assert {"boxes", "crf", "errors", "pas", "load"} <= set(dir(__import__("lidcam_rt")))
