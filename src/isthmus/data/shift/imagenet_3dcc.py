"""ImageNet-3DCC (Kar et al. 2022): ImageNet's validation images under corruptions that use the scene's geometry.

The files are those of the published archives, ``<corruption>/<severity>/<WordNet id>/*``, 3×224×224, not resized.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from isthmus.data.shift.imagenet_c import CorruptedFolders
from isthmus.data.shift.shifted import Published

CORRUPTIONS = (
    "near_focus",
    "far_focus",
    "bit_error",
    "color_quant",
    "flash",
    "fog_3d",
    "h265_abr",
    "h265_crf",
    "iso_noise",
    "low_light",
    "xy_motion_blur",
    "z_motion_blur",
)


class ImageNet3DCC(CorruptedFolders):
    """One ``corruption`` at one ``severity``; ``size`` is the height and width of the images.

    Attributes:
        corruption: one of the twelve of :data:`CORRUPTIONS`.
    """

    known: ClassVar[tuple[str, ...]] = CORRUPTIONS
    published: ClassVar[Published] = Published(
        title="ImageNet-3DCC",
        place="EPFL-VILAB/ImageNet-3DCC",
        get="Get it with the tool of https://github.com/EPFL-VILAB/3DCommonCorruptions into MIRROR/EPFL-VILAB.",
    )
    name: Literal["imagenet_3dcc"] = "imagenet_3dcc"
