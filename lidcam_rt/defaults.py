"""The views and the CRF of a call that names neither: those that `lidcam tune` recorded in the artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lidcam_rt.artifact import Manifest

if TYPE_CHECKING:
    from lidcam_rt.augment import Augment
    from lidcam_rt.crf.localization import Refine
    from lidcam_rt.crf.options import CrfOptions

__all__ = ["refinement", "views"]


def refinement(manifest: Manifest, value: Refine | CrfOptions | str | None) -> Refine | None:
    """The CRF of a call: None means the artifact's own, `none` means no CRF.

    Raises:
        InputError: no such preset or size, or a value of another type.
    """
    if value is None and manifest.defaults is not None:
        value = manifest.defaults.refine
    if value is None:
        return None  # nothing of the CRF is imported
    from lidcam_rt.crf.localization import Refine

    return Refine.of(value)


def views(manifest: Manifest, value: Augment | str | None) -> Augment | None:
    """The views of a call: None means the artifact's own, `none` means one view.

    Raises:
        InputError: no such views.
    """
    spec = manifest.defaults
    if value is None and (spec is None or (spec.scales == (1.0,) and not spec.flip)):
        return None
    from lidcam_rt.augment import Augment

    if value is None and spec is not None:
        return Augment(spec.scales, spec.flip)
    return Augment.of(value)
