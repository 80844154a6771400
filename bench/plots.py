"""Small PNG plots of the benches' figures. Matplotlib is in the `bench` extra: pip install -e '.[bench]'."""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results import FOLDER

NOTE = "emulated card, modelled times"


def require_matplotlib() -> None:
    """Ends the program where there is none: said before anything is measured."""
    if importlib.util.find_spec("matplotlib") is None:
        raise SystemExit("a plot needs matplotlib: pip install -e '.[bench]'")


class Plot(argparse.Action):
    """`--plot`, a switch that is refused at once where it cannot be obeyed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, nargs=0, default=False, **options)

    def __call__(self, parser: object, namespace: argparse.Namespace, *_: object) -> None:
        require_matplotlib()
        setattr(namespace, self.dest, True)


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def _figure(title: str, xlabel: str, ylabel: str) -> tuple[Any, Any]:
    figure, axes = _pyplot().subplots(figsize=(7, 4.2), layout="constrained")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    figure.text(0.995, 0.995, NOTE, ha="right", va="top", fontsize=7, color="gray")  # no bar stands before it there
    return figure, axes


def _save(name: str, figure: Any, axes: Any) -> Path:
    axes.legend(fontsize=8)
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{name}.png"
    figure.savefig(path, dpi=130)
    print(f"plot: {path}")
    return path


def plot_lines(
    name: str, title: str, xlabel: str, ylabel: str, series: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> Path:
    """One line with markers for each series (x values, y values). Returns bench/results/NAME.png."""
    figure, axes = _figure(title, xlabel, ylabel)
    for label, (xs, ys) in series.items():
        axes.plot(xs, ys, marker="o", markersize=4, label=label)
    axes.set_ylim(bottom=0)
    return _save(name, figure, axes)


def plot_bars(name: str, title: str, ylabel: str, labels: Sequence[str], series: Mapping[str, Sequence[float]]) -> Path:
    """Groups of bars, one group a label, one bar a series. Returns bench/results/NAME.png."""
    figure, axes = _figure(title, "", ylabel)
    width = 0.8 / len(series)
    for i, (label, values) in enumerate(series.items()):
        axes.bar([x + (i - (len(series) - 1) / 2) * width for x in range(len(labels))], values, width, label=label)
    axes.set_xticks(range(len(labels)), labels, fontsize=8)
    return _save(name, figure, axes)


def plot_shares(name: str, title: str, xlabel: str, series: Mapping[str, Sequence[float]]) -> Path:
    """For each series the share of values up to x. Returns bench/results/NAME.png."""
    figure, axes = _figure(title, xlabel, "share of requests")
    for label, values in series.items():
        ordered = sorted(values)
        axes.step(ordered, [(i + 1) / len(ordered) for i in range(len(ordered))], where="post", label=label)
    axes.axhline(0.95, color="black", linewidth=0.8, linestyle="--")
    return _save(name, figure, axes)


def plot_groups(
    path: Path, panels: Mapping[str, tuple[Sequence[str], Mapping[str, Sequence[Sequence[float]]]]]
) -> Path:
    """A panel for each unit, side by side: names down its side, for each a bar of every series, as long as the median
    of its values, with their range. Returns `path`."""
    figure, axes = _pyplot().subplots(1, len(panels), figsize=(10, 3.6), layout="constrained")
    for panel, (unit, (names, series)) in zip(axes, panels.items(), strict=True):
        height = 0.8 / len(series)
        for i, (label, values) in enumerate(series.items()):
            middles = [statistics.median(some) for some in values]
            ranges = [[m - min(some) for m, some in zip(middles, values, strict=True)],
                      [max(some) - m for m, some in zip(middles, values, strict=True)]]  # fmt: skip
            places = [place + (i - (len(series) - 1) / 2) * height for place in range(len(names))]
            bars = panel.barh(places, middles, height, xerr=ranges, label=label)
            panel.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        panel.set_yticks(range(len(names)), names, fontsize=8)
        panel.set(xlabel=unit)
        panel.margins(x=0.15)
        panel.invert_yaxis()
    axes[0].legend(fontsize=8)
    figure.suptitle("No real card: modelled by a timing profile; computed by this machine's processor", fontsize=10)
    figure.savefig(path, dpi=110)
    return path
