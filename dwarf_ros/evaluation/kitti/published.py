"""What methods have published about the KITTI 2015 scene-flow benchmark, where it could be checked against its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Outliers over all pixels on KITTI 2015's test images, %; None where the source does not say.

    Attributes:
        method: its name.
        D1, D2, Fl, SF: %.
        source: where the figures were read.
        note: how they differ from the others, "" where they do not.
    """

    method: str
    D1: float | None
    D2: float | None
    Fl: float | None
    SF: float | None
    source: str
    note: str = ""


PUBLISHED = (
    Published("MS-RAFT-3D", None, None, None, 3.89, "arXiv 2506.01443"),
    Published("CamLiRAFT, with refinement", 1.81, 2.94, 2.96, 4.26, "its README"),
    Published("M-FUSE", None, None, None, 4.83, "its README"),
    Published("CamLiRAFT, without refinement", 1.81, 3.02, 3.43, 4.97, "its README"),
    Published("RAFT-3D", None, None, None, 5.77, "its paper's abstract"),
    Published(
        "PWOC-3D", 4.65, 6.75, 11.46, 13.75, "its README", "20 validation images of its own choice"
    ),
)
