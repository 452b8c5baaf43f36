"""Pretrained weights from the Hugging Face hub: from its cache, or by a connection that fails quickly."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

from lidcam_rt.errors import ExportError

__all__ = ["check_hub", "unreachable"]

_FILES = ("model.safetensors", "pytorch_model.bin")
_SECONDS = 5


def check_hub(source: str, repository: str) -> None:
    """Check that weights are in the cache, or that the hub answers: its client would try for a minute.

    Args:
        source: as the user wrote it.
        repository: OWNER/NAME.

    Raises:
        ExportError: neither.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in _FILES):
        return
    if constants.HF_HUB_OFFLINE:
        raise unreachable(source, "HF_HUB_OFFLINE is set and they are not in the cache")
    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    if not endpoint.startswith(("https://", "http://")):
        raise unreachable(source, f"HF_ENDPOINT is {endpoint}, which is not an http(s) URL")
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=_SECONDS).close()  # nosec B310 - as above
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        raise unreachable(source, f"{endpoint}: {getattr(error, 'reason', error)}") from None


def unreachable(source: str, reason: object) -> ExportError:
    """The error for weights that cannot be downloaded."""
    text = (str(reason).strip() or type(reason).__name__).splitlines()[0]
    return ExportError(
        f"{source}: its pretrained weights cannot be downloaded ({text[:200]}). Download them on a machine with access "
        "(into HF_HOME or TORCH_HOME, which you copy), give your weights with --weights FILE, or try the export with "
        "--random-weights"
    )
