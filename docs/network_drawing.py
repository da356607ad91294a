"""SVG drawing of a network preset."""

from __future__ import annotations

from html import escape

from dwarf_ros.network.presets import Preset

_ROW, _BOX = 66, 40
_TOP = 108
_WIDTH = 980
# Columns of boxes: left side and width, px.
_ENCODER, _WARP, _VOLUMES, _TRUNK, _HEADS, _FLOW = (
    (20, 190),
    (250, 90),
    (360, 150),
    (530, 130),
    (680, 140),
    (840, 120),
)
_COLOURS = {
    "image": ("#f1f3f6", "#5a6372"),
    "encoder": ("#e3eefa", "#0b62b4"),
    "volume": ("#fdeadf", "#cf4c00"),
    "decoder": ("#e0f3ec", "#00875f"),
    "flow": ("#f3e6f0", "#9a4a86"),
}


def network_drawing(preset: Preset) -> str:
    """SVG with the encoder on the left, the decoder on the right, and one row per level."""
    drawing = _Drawing()
    levels = preset.coarsest_level
    side = 2 * preset.max_displacement + 1
    volumes = f"{side} + {side} + {side**2} + {side**2} channels"
    bottom = _TOP + levels * _ROW

    drawing.heading(_ENCODER, "Encoder", "shared by all four images")
    drawing.heading((_WARP[0], _FLOW[0] + _FLOW[1] - _WARP[0]), "Decoder", "coarse to fine")
    drawing.box("image", _ENCODER, 66, "four images", "left, right at t0 and t1")
    for level in range(1, levels + 1):
        top = _TOP + level * _ROW - 40
        channels = preset.encoder_channels[level - 1]
        name = f"level {level}: {channels} channels"
        drawing.box("encoder", _ENCODER, top, name, f"1/{2**level} of height and width")
        drawing.arrow(
            (_ENCODER[0] + _ENCODER[1] / 2, top - (28 if level == 1 else 26)),
            (_middle(_ENCODER), top),
        )
        if level < preset.finest_level:
            continue
        centre = top + _BOX / 2
        coarsest = level == levels
        warped = not coarsest or preset.matching
        if warped:
            drawing.box("volume", _WARP, top, "warp", "by scene flow so far")
            drawing.arrow((_ENCODER[0] + _ENCODER[1], centre), (_WARP[0], centre))
        start = _WARP if warped else _ENCODER
        drawing.arrow((start[0] + start[1], centre), (_VOLUMES[0], centre))
        drawing.box("volume", _VOLUMES, top, "cost volumes", volumes)
        trunk = " ".join(map(str, preset.trunk_channels))
        drawing.box("decoder", _TRUNK, top, "trunk", trunk + (", dense" if preset.dense else ""))
        heads = " ".join(map(str, preset.head_channels))
        context = level == preset.finest_level or preset.matching
        drawing.box("decoder", _HEADS, top, "3 heads", heads + (", context" if context else ""))
        drawing.box("flow", _FLOW, top, "scene flow", f"grid of {2**level} px")
        for one, other in ((_VOLUMES, _TRUNK), (_TRUNK, _HEADS), (_HEADS, _FLOW)):
            drawing.arrow((one[0] + one[1], centre), (other[0], centre))
        if level < levels:
            drawing.path(top + _BOX + _ROW - _BOX, top + _BOX)
    if preset.matching:
        top = bottom + 26
        drawing.box(
            *("volume", (_VOLUMES[0] - 110, 260), top),
            *("global matching", f"all pairs of pixels at level {levels}"),
        )
        drawing.arrow((_ENCODER[0] + _ENCODER[1], top + 20), (_VOLUMES[0] - 110, top + 20))
        drawing.line((_middle(_ENCODER), bottom), (_middle(_ENCODER), top + 20))
        drawing.line((_middle(_ENCODER), top + 20), (_ENCODER[0] + _ENCODER[1], top + 20))
        drawing.arrow((_middle(_WARP), top), (_middle(_WARP), bottom))
        bottom = top + _BOX
    finest = _TOP + preset.finest_level * _ROW - 40
    enlarge = "learned mixture" if preset.convex_enlargement else "bilinear"
    drawing.box(
        *("flow", (_FLOW[0] - 90, _FLOW[1] + 90), 66),
        *("disparity, next disparity, flow", f"full size, {enlarge}"),
    )
    drawing.arrow((_middle(_FLOW), finest), (_middle(_FLOW), 66 + _BOX))
    return drawing.svg(preset.name, bottom + 24)


def _middle(column: tuple[int, int]) -> float:
    return column[0] + column[1] / 2


class _Drawing:
    def __init__(self) -> None:
        self._parts: list[str] = []

    def heading(self, column: tuple[int, int], name: str, note: str) -> None:
        self._parts.append(
            f'<text class="heading" x="{_middle(column):g}" y="30">{escape(name)}</text>'
            f'<text class="note" x="{_middle(column):g}" y="48">{escape(note)}</text>'
        )

    def box(self, kind: str, column: tuple[int, int], top: float, name: str, note: str) -> None:
        fill, edge = _COLOURS[kind]
        self._parts.append(
            f'<rect x="{column[0]}" y="{top:g}" width="{column[1]}" height="{_BOX}" rx="5" fill="{fill}" stroke="{edge}"/>'
            f'<text x="{_middle(column):g}" y="{top + 17:g}">{escape(name)}</text>'
            f'<text class="note" x="{_middle(column):g}" y="{top + 32:g}">{escape(note)}</text>'
        )

    def line(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._parts.append(f'<path d="M{start[0]:g} {start[1]:g}L{end[0]:g} {end[1]:g}"/>')

    def arrow(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self._parts.append(
            f'<path marker-end="url(#tip)" d="M{start[0]:g} {start[1]:g}L{end[0]:g} {end[1]:g}"/>'
        )

    def path(self, coarser_top: float, finer_bottom: float) -> None:
        """Line from the scene flow of a level to the warp of the next finer level."""
        between = (coarser_top + finer_bottom) / 2
        x, end = _middle(_FLOW), _middle(_WARP)
        self._parts.append(
            f'<path marker-end="url(#tip)" d="M{x:g} {coarser_top:g}V{between:g}H{end:g}V{finer_bottom:g}"/>'
        )

    def svg(self, name: str, height: float) -> str:
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height:g}" '
                f'viewBox="0 0 {_WIDTH} {height:g}" role="img">',
                f"<title>The network {escape(name)}</title>",
                "<style>text { fill: #1b1f27; text-anchor: middle; "
                'font: 13px system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }',
                "text.heading { font-size: 15px; font-weight: 600; }",
                "text.note { fill: #5a6372; font-size: 10.5px; }",
                "path { fill: none; stroke: #5a6372; }</style>",
                '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
                '<path d="M0 0L8 4L0 8z" style="fill: #5a6372; stroke: none"/></marker></defs>',
                f'<rect width="{_WIDTH}" height="{height:g}" rx="6" fill="#ffffff"/>',
                *self._parts,
                "</svg>\n",
            ]
        )
