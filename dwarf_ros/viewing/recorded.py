"""What a running node published, out of a bag that recorded it."""

from __future__ import annotations

from pathlib import Path

from dwarf_ros.recordings.bag.estimates import open_estimates
from dwarf_ros.viewing.results import Result, Results


def recorded_results(bag: Path, namespace: str | None = None) -> Results | None:
    """The estimates of a bag, with the left images that it holds of the same stamps; None without any.

    Args:
        bag: folder or file.
        namespace: of the node; None: the only one that there is.

    Raises:
        InputError: the bag is damaged, or it has estimates of several nodes and none is chosen.
    """
    estimates = open_estimates(bag, namespace)
    if not len(estimates):
        return None

    def read(index: int) -> Result:
        estimate, left = estimates[index], estimates.left_image(index)
        if left is not None and left.shape[:2] != estimate.scene_flow.valid.shape:
            left = None
        return Result(f"{index:06d}", estimate.scene_flow, left, estimate.estimator)

    return Results(str(bag), [f"{index:06d}" for index in range(len(estimates))], read)
