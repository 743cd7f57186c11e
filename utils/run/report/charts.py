"""Line charts as inline SVG. The points carry their values, for the script that shows the nearest one."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from utils.run.report.content import escape

WIDTH, HEIGHT = 360, 200  # of the drawing, about that of its place on a phone: text keeps its size there
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 24  # margins
MAX_TICKS = 5


class Series(NamedTuple):
    """`points`: (step, value), in the order of the steps."""

    name: str
    points: Sequence[tuple[float, float]]


def line_chart(title: str, series: Sequence[Series], *, form: Callable[[float], str] = "{:.3g}".format) -> str:
    """Values over steps; `form` writes one. A chart without a finite point is left out (an empty string)."""
    series = [Series(name, [(x, y) for x, y in points if math.isfinite(y)]) for name, points in series]
    if not any(points for _, points in series):
        return ""
    xs, ys = ([point[axis] for _, points in series for point in points] for axis in (0, 1))
    x_ticks, y_ticks = ticks(0, max(xs)), ticks(min([0, *ys]), max(ys))
    across = scale(0, max(x_ticks[-1], max(xs)), LEFT, WIDTH - RIGHT)
    up = scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    drawn = "".join(draw(number, one, across, up, form) for number, one in enumerate(series))
    last = ", ".join(f"{name} {form(points[-1][1])}" for name, points in series if points)
    legend = "".join(f'<span class="key s{number}">{escape(name)}</span>' for number, (name, _) in enumerate(series))
    return (
        f'<figure class="chart"><figcaption><h3>{escape(title)}</h3><div class="legend">{legend}</div></figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" tabindex="0" aria-label="{escape(f"{title}: last {last}")}; '
        f'arrow keys read the points">{axes(x_ticks, y_ticks, across, up)}{drawn}'
        f'<line class="cursor" y1="{TOP}" y2="{HEIGHT - BOTTOM}" hidden></line></svg>'
        f'<output aria-live="polite">last: {escape(last)}</output></figure>'
    )


def draw(number: int, series: Series, across: Callable, up: Callable, form: Callable) -> str:
    """A line through the points, and a dot for each."""
    places = [(f"{across(x):.1f}", f"{up(y):.1f}") for x, y in series.points]
    path = " ".join(f"{x},{y}" for x, y in places)
    dots = "".join(
        f'<circle cx="{x}" cy="{y}" r="{2.5 if len(places) <= 60 else 1}" data-step="{step:g}" '
        f'data-name="{escape(series.name)}" data-value="{escape(form(value))}"/>'
        for (x, y), (step, value) in zip(places, series.points, strict=True)
    )
    return f'<g class="line s{number}"><polyline points="{path}"/>{dots}</g>'


def axes(x_ticks: Sequence[float], y_ticks: Sequence[float], across: Callable, up: Callable) -> str:
    """Grid lines with values on the left, steps below."""
    lines = [
        f'<path class="grid" d="M{LEFT} {up(y):.1f}H{WIDTH - RIGHT}"/><text x="{LEFT - 6}" y="{up(y) + 4:.1f}" '
        f'text-anchor="end">{y:.4g}</text>'
        for y in y_ticks
    ]
    lines += [
        f'<text x="{across(x):.1f}" y="{HEIGHT - 7}" text-anchor="middle">{x:,.0f}</text>'
        for x in x_ticks
        if across(x) < WIDTH - 4
    ]
    return "".join(lines)


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """The linear map of low..high to start..end; all values to the middle if there is one only."""
    if high == low:
        return lambda _: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def ticks(low: float, high: float) -> list[float]:
    """At most MAX_TICKS + 1 round numbers from at most `low` to at least `high`."""
    if high <= low:
        high = low + (abs(low) or 1)
    power = 10 ** math.floor(math.log10((high - low) / MAX_TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * MAX_TICKS >= (high - low) * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(first, last + 1)]
