"""What a job does to each picture, and the localizer that does it in a worker."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lidcam_cli.loading import load_localizer
from lidcam_rt.errors import ArtifactError, InputError
from lidcam_rt.files import file_sha256, write_atomically
from lidcam_rt.image import MAX_PIXELS
from lidcam_rt.localizer import Localizer
from lidcam_scale.storage import is_url, read_url

__all__ = ["Job", "localizer_of"]


@dataclass(frozen=True, slots=True)
class Job:
    """An artifact and how it is run.

    Attributes:
        model: path or URL of an artifact, or path of an engine; every worker must be able to read it.
        mask: include the masks.
        batch_size: pictures per call of the network; None: 1 on the CPU, 8 on a GPU.
        backend: as for `lidcam_rt.load`.
        device: as for `lidcam_rt.load`.
        precision: as for `lidcam_rt.load`.
        refine: preset of a dense CRF, as in a call of the localizer.
        augment: views, as in a call of the localizer.
        max_pixels: as for `lidcam_rt.load`.
        strict: as for `lidcam_rt.load`.
        threads: threads of a call of the network on the CPU, in each worker. Not part of a run's identity.
        sha256: of the model's file; a worker refuses another one. Empty: not checked.
    """

    model: str
    mask: bool = True
    batch_size: int | None = None
    backend: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    refine: str | None = None
    augment: str | None = None
    max_pixels: int = MAX_PIXELS
    strict: bool = True
    threads: int = 1
    sha256: str = ""

    def identity(self) -> dict[str, Any]:
        """What the rows depend on, as JSON values."""
        values = asdict(self)
        del values["model"], values["threads"]
        return {"model_sha256": values.pop("sha256"), **values}

    def check(self) -> None:
        """Check the options before any worker starts.

        Raises:
            InputError: one is out of range.
        """
        from lidcam_rt.augment import Augment
        from lidcam_rt.crf.localization import Refine

        Refine.of(self.refine)
        Augment.of(self.augment)
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {self.batch_size}")


@functools.lru_cache(maxsize=1)
def localizer_of(job: Job) -> Localizer:
    """The localizer of this process: loaded for the first shard, kept for those that follow.

    Raises:
        ArtifactError: the model is not the one that the job started with.
    """
    path = _downloaded(job.model) if is_url(job.model) else Path(job.model)
    if job.sha256:
        try:
            digest = file_sha256(path)
        except OSError as error:
            raise ArtifactError(
                f"{job.model}: cannot be read by a worker ({error.strerror or error}). Put the model where all "
                "machines see it, or give its URL"
            ) from None
        if digest != job.sha256:
            raise ArtifactError(
                f"{job.model}: a worker sees another file than the job started with (SHA-256 {digest[:12]}..., not "
                f"{job.sha256[:12]}...). Copy the same model to all machines"
            )
    return load_localizer(
        path,
        backend=job.backend,
        device=job.device,
        precision=job.precision,
        threads=job.threads,
        max_pixels=job.max_pixels,
        strict=job.strict,
    )


def _downloaded(url: str) -> Path:
    """A copy of a model in this machine's temporary folder, named by its digest; an existing copy is reused."""
    try:
        data = read_url(url)
    except OSError as error:
        raise ArtifactError(f"{url}: cannot be read ({error}). Check the address and the permissions") from None
    path = Path(tempfile.gettempdir()) / f"lidcam-{hashlib.sha256(data).hexdigest()[:32]}{Path(url).suffix}"
    if not path.is_file() or path.read_bytes() != data:
        write_atomically(path, data)
    return path
