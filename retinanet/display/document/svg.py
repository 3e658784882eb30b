"""A plot's SVG file as a part of an HTML page, whose colours and font it takes on: legible on dark pages too."""

import re

_COLORS = {
    "#222222": "var(--ink)",
    "#000000": "var(--ink)",
    "#767676": "var(--quiet)",
    "#ffffff": "var(--paper)",
    "#0072b2": "var(--blue)",
    "#882255": "var(--wine)",
}
"""Colours of `display.figures` that a page has its own values for, lighter ones on dark pages."""
_LEFT_OUT = re.compile(r"<\?xml.*?\?>|<!DOCTYPE.*?>|<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", re.DOTALL)
_IDS = re.compile(r' id="(?:line2d|[A-Za-z.]+)_\d+"')
"""Names of parts that are the same in every file; those that are referred to are hashes of their content."""
_OPENING = re.compile(r'<svg[^>]*? width="([\d.]+)pt" height="([\d.]+)pt" viewBox="([\d. -]+)"[^>]*>')
_PATH = re.compile(r' d="([^"]*)"')
_NUMBER = re.compile(r"\d+\.\d{3,}")
_PIXELS = 96 / 72
"""CSS pixels per point."""


def inline_svg(svg: str, label: str) -> str:
    """The `<svg>` element of a file that `figures.save_figure` wrote. label: its description, escaped.

    `--w` is its natural width, in which its smallest text has 12 pixels.
    """
    svg = _IDS.sub("", _LEFT_OUT.sub("", svg))
    svg = _PATH.sub(lambda found: f' d="{_shorter(found[1])}"', svg)
    svg = re.sub(r"#[0-9a-f]{6}(?=[;\"])", lambda found: _COLORS.get(found[0], found[0]), svg)
    svg = re.sub(r"font-family: [^;]*; ?", "", svg).replace("xlink:href", "href")
    svg = re.sub(r">\s+<", "><", svg)
    opening = _OPENING.search(svg)
    assert opening is not None
    width = float(opening[1]) * _PIXELS
    start = f'<svg viewBox="{opening[3]}" style="--w: {width:.0f}px" role="img" aria-label="{label}">'
    return start + svg[opening.end() :].strip()


def _shorter(data: str) -> str:
    """Path data in hundredths of a point, on one line."""
    return " ".join(_NUMBER.sub(lambda found: f"{float(found[0]):.2f}".rstrip("0").rstrip("."), data).split())
