"""The key of a build: everything that makes two engines different is in it."""

from lidcam_export.tensorrt.engine_writer import cache_key

from lidcam_rt.backends.engine_file import Profile


def test_the_cache_key_depends_on_all_that_decides():
    shapes = {"image": Profile(min=(1, 2), opt=(1, 2), max=(1, 2))}
    base = {
        "artifact_sha256": "a", "flavour": "tensorrt", "version": "11", "compute_capability": ("8.9",),
        "precision": "fp32", "profile": shapes, "pas": "body", "kernel_sha256": None,
        "package_version": "0.1.0",
    }  # fmt: skip
    others = {
        "artifact_sha256": "b", "flavour": "tensorrt-rtx", "version": "12", "compute_capability": ("9.0",),
        "precision": "fp16", "profile": {"image": Profile(min=(1, 2), opt=(1, 2), max=(3, 2))}, "pas": "plugin",
        "kernel_sha256": "c", "package_version": "0.2.0",
    }  # fmt: skip
    keys = {cache_key(**{**base, name: value}) for name, value in others.items()} | {cache_key(**base)}
    assert len(keys) == len(others) + 1
