"""Which topics of a bag are those of a stereo camera."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dwarf_ros.recordings.bag.storage import MESSAGE_TYPES
from dwarf_ros.types import InputError

_SIDES = ("left", "right")


@dataclass(frozen=True)
class StereoTopics:
    """Absolute names of a stereo camera's topics in a bag."""

    left_image: str
    right_image: str
    left_camera_info: str
    right_camera_info: str

    @property
    def names(self) -> tuple[str, str, str, str]:
        """Left and right image, left and right camera_info."""
        return (
            self.left_image,
            self.right_image,
            self.left_camera_info,
            self.right_camera_info,
        )

    @property
    def base_names(self) -> tuple[str, str, str, str]:
        """As `names`, the images' without /compressed, which image_transport adds."""
        left, right = (name.removesuffix("/compressed") for name in self.names[:2])
        return left, right, self.left_camera_info, self.right_camera_info


def namespace_prefix(namespace: str) -> str:
    """What to put before "/left/image_rect"."""
    stripped = namespace.strip("/")
    if stripped and not re.fullmatch(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", stripped, re.ASCII):
        raise InputError(f"namespace: {namespace!r}, expected a name such as stereo or car/front")
    return f"/{stripped}" if stripped else ""


def find_topics(
    types: Mapping[str, str], namespace: str | None, remap: Mapping[str, str]
) -> StereoTopics:
    """Names of the stereo topics; they need not all be there.

    Raises:
        InputError: they could be in several namespaces, or what is remapped is none of them.
    """
    known = [f"{side}/{name}" for name in ("image_rect", "camera_info") for side in _SIDES]
    for name in remap:
        if name not in known:
            raise InputError(f"remap: {name!r}, expected one of {', '.join(known)}")
    if namespace is None:
        pattern = re.compile(r"(.*)/(?:left|right)/image_rect(?:/compressed)?")
        found = sorted({match[1] for name in types if (match := pattern.fullmatch(name))})
        if len(found) > 1 and not all(f"{side}/image_rect" in remap for side in _SIDES):
            names = ", ".join(prefix or "/" for prefix in found)
            raise InputError(
                f"stereo topics in {len(found)} namespaces ({names}), expected one: choose it by its namespace"
            )
        prefix = found[0] if found else ""
    else:
        prefix = namespace_prefix(namespace)
    images = []
    for side in _SIDES:
        name = remap.get(f"{side}/image_rect", f"{prefix}/{side}/image_rect")
        name = f"/{name.lstrip('/')}"
        compressed = f"{name}/compressed"
        images.append(compressed if name not in types and compressed in types else name)
    infos = []
    for side, image in zip(_SIDES, images, strict=True):
        beside = image.removesuffix("/compressed").rpartition("/")[0] + "/camera_info"
        infos.append(f"/{remap.get(f'{side}/camera_info', beside).lstrip('/')}")
    return StereoTopics(*images, *infos)


def expected_types(name: str, topics: StereoTopics) -> tuple[str | None, ...]:
    """Types that a topic may have; None: it may be absent."""
    if name in (topics.left_image, topics.right_image):
        return (MESSAGE_TYPES["image"], MESSAGE_TYPES["compressed"], None)
    return (MESSAGE_TYPES["camera_info"], None)


def topic_problems(types: Mapping[str, str], topics: StereoTopics) -> list[str]:
    """What is missing or of another type, a sentence each."""
    if not types:
        return ["no topics, expected left/image_rect and right/image_rect"]
    problems = []
    for name in topics.names:
        expected = expected_types(name, topics)
        if name not in types:
            problems.append(f"no {name}" + _instead(name, types, expected[0]))
        elif types[name] not in expected:
            problems.append(f"{name} is {types[name]}, expected {expected[0]}")
    return problems


def _instead(name: str, types: Mapping[str, str], wanted: str | None) -> str:
    """What the user may have meant."""
    raw = name.replace("image_rect", "image_raw")
    if raw != name and raw in types:
        return f", only {raw}, which is not rectified: expected rectified images (image_proc makes them)"
    others = sorted(other for other, kind in types.items() if kind == wanted)
    listed = f"; of that type there are {', '.join(others[:6])}" if others else ""
    return f", expected {wanted}{listed}"
