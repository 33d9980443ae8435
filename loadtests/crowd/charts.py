"""Charts as SVG, drawn here: a report loads nothing from elsewhere, and needs no script to be read."""

from collections.abc import Mapping, Sequence
from html import escape
from math import ceil, floor, log10
from typing import Final

WIDTH: Final = 720
HEIGHT: Final = 260
LEFT: Final = 82
RIGHT: Final = 12
TOP: Final = 12
BOTTOM: Final = 44
TICKS_MAX: Final = 8


def _x(at: float, count: int) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * at / max(1, count)


def _frame(title: str, body: str, across: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{body}'
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(across)}'
        "</text></svg>"
    )


def _seconds_axis(seconds: Sequence[int]) -> str:
    every = max(1, ceil(len(seconds) / TICKS_MAX))
    marks = []
    for at, second in enumerate(seconds):
        if second % every == 0:
            x = _x(at, len(seconds))
            marks.append(
                f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{second}</text>'
            )
    return "".join(marks)


def _line(y: float, label: str) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
    )


def nice_top(most: float) -> float:
    """The next of 1, 2, 5, 10, 20, … that is not below."""
    if most <= 1:
        return 1.0
    decade = 10.0 ** floor(log10(most))
    return next(step * decade for step in (1, 2, 5, 10) if step * decade >= most)


def bars(title: str, seconds: Sequence[int], series: Mapping[str, Sequence[int]], across: str) -> str:
    """Bars, one a second, each of the series in turn on top of those before. Each series has a colour by its place."""
    totals = [sum(values[at] for values in series.values()) for at in range(len(seconds))]
    top = nice_top(max(totals, default=0))
    scale = (HEIGHT - TOP - BOTTOM) / top
    body = "".join(_line(HEIGHT - BOTTOM - scale * top * part / 4, f"{top * part / 4:,.0f}") for part in range(5))
    wide = (WIDTH - LEFT - RIGHT) / max(1, len(seconds))
    for at, second in enumerate(seconds):
        y = float(HEIGHT - BOTTOM)
        for place, (name, values) in enumerate(series.items()):
            tall = scale * values[at]
            if tall <= 0:
                continue
            y -= tall
            body += (
                f'<rect class="s{place}" x="{_x(at, len(seconds)) + 0.08 * wide:.1f}" y="{y:.1f}" '
                f'width="{0.84 * wide:.1f}" height="{tall:.1f}">'
                f"<title>second {second}: {values[at]:,} {escape(name)}</title></rect>"
            )
    return _frame(title, body + _seconds_axis(seconds), across)


def lines(title: str, seconds: Sequence[int], series: Mapping[str, Sequence[float | None]], across: str) -> str:
    """Lines over the seconds on a logarithmic scale of milliseconds; None is a gap."""
    told = [value for values in series.values() for value in values if value]
    low = floor(log10(min(told, default=1.0)))
    high = max(low + 1, ceil(log10(max(told, default=10.0))))
    scale = (HEIGHT - TOP - BOTTOM) / (high - low)
    body = "".join(
        _line(HEIGHT - BOTTOM - scale * (decade - low), _duration(decade)) for decade in range(low, high + 1)
    )
    for place, (name, values) in enumerate(series.items()):
        points: list[str] = []
        for at, value in enumerate(values):
            if value:
                x = _x(at + 0.5, len(seconds))
                y = HEIGHT - BOTTOM - scale * (log10(value) - low)
                points.append(f"{x:.1f},{y:.1f}")
                body += (
                    f'<circle class="s{place}" cx="{x:.1f}" cy="{y:.1f}" r="2.5">'
                    f"<title>second {seconds[at]}: {escape(name)} {value:,.1f} ms</title></circle>"
                )
            else:
                body += _path(points, place)
                points = []
        body += _path(points, place)
    return _frame(title, body + _seconds_axis(seconds), across)


def _duration(decade: int) -> str:
    """10 to the `decade` milliseconds."""
    return f"{10.0**decade:g} ms" if decade < 3 else f"{10.0 ** (decade - 3):g} s"


def _path(points: Sequence[str], place: int) -> str:
    return f'<polyline class="l{place}" points="{" ".join(points)}"/>' if len(points) > 1 else ""


def legend(names: Sequence[str]) -> str:
    """What the colours mean."""
    return '<p class="legend">' + "".join(
        f'<span><i class="b{place}"></i>{escape(name)}</span>' for place, name in enumerate(names)
    ) + "</p>"  # fmt: skip
