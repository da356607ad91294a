"""Results to show, read or estimated on demand."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dwarf_ros.samples import SampleTruth
from dwarf_ros.types import InputError, MovingObject, SceneFlow

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Result:
    """Scene flow of one reference frame, and what belongs to it.

    Attributes:
        name: suitable as the name of a file.
        scene_flow: the estimate.
        left: the reference's left image, uint8 RGB, H x W x 3; None where unknown.
        estimator: description of what computed it; "" where unknown.
        seconds: time that estimating took, s; None where it was estimated earlier.
        truth: None where unknown.
        objects: moving objects at the reference's time.
        trajectory: positions of the camera so far, oldest first, float N x 3, m, in the reference's camera frame; None
            where unknown.
    """

    name: str
    scene_flow: SceneFlow
    left: np.ndarray | None = None
    estimator: str = ""
    seconds: float | None = None
    truth: SampleTruth | None = None
    objects: Sequence[MovingObject] = ()
    trajectory: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Results:
    """Results in order of time, read or estimated on demand.

    Attributes:
        source: description of where they are from.
        names: one for each.
        read: from a number to its result; raises InputError where a file is missing or damaged.
    """

    source: str
    names: Sequence[str]
    read: Callable[[int], Result]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Result]:
        """All results that can be read; the others are left out and logged.

        Raises:
            InputError: none can be read.
        """
        errors = []
        for index, name in enumerate(self.names):
            try:
                result = self.read(index)
            except InputError as error:
                errors.append(error)
                _log.warning("%s is left out: %s", name, error)
                continue
            yield result
        if errors and len(errors) == len(self):
            raise errors[0]

    def only(self, name: str) -> Results:
        """Only the result of that name or number (from 0).

        Raises:
            InputError: there is no such result.
        """
        if name in self.names:
            index = list(self.names).index(name)
        elif name.isdecimal() and int(name) < len(self):
            index = int(name)
        else:
            raise InputError(
                f"frame: {name}: not in {self.source}, expected a number from 0 to {len(self) - 1} or a name such as "
                f"{self.names[0]}"
            )
        return Results(self.source, [self.names[index]], lambda _: self.read(index))
