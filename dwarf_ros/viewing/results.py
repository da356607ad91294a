"""Results to be looked at, read or estimated when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from dwarf_ros.samples import SampleTruth
from dwarf_ros.types import InputError, SceneFlow


@dataclass(frozen=True, eq=False)
class Result:
    """Scene flow of one reference frame, and what is known beside it.

    Attributes:
        name: fit to name a file.
        scene_flow: the estimate.
        left: the reference's left image, uint8 RGB, H x W x 3; None where it is not known.
        estimator: what computed it, in words; "" where that is not known.
        seconds: how long estimating took, s; None where it was done before.
        truth: None where it is not known.
    """

    name: str
    scene_flow: SceneFlow
    left: np.ndarray | None = None
    estimator: str = ""
    seconds: float | None = None
    truth: SampleTruth | None = None


@dataclass(frozen=True, eq=False)
class Results:
    """Results in order of time, read or estimated when they are asked for.

    Attributes:
        source: where they are from, in words.
        names: of each.
        read: from its number to a result; raises InputError where a file is missing or damaged.
    """

    source: str
    names: Sequence[str]
    read: Callable[[int], Result]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[Result]:
        return (self.read(index) for index in range(len(self)))

    def only(self, name: str) -> Results:
        """The one of that name, or of that number, from 0.

        Raises:
            InputError: there is none.
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
