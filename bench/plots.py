"""Small PNG plots of the benches' figures. Matplotlib is in the `bench` extra: pip install -e '.[bench]'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from results import FOLDER

NOTE = "emulated card, modelled times"


def _figure(title: str, xlabel: str, ylabel: str) -> tuple[Any, Any]:
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("--plot needs matplotlib: pip install -e '.[bench]'") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    axes.text(0.995, 0.01, NOTE, transform=axes.transAxes, ha="right", va="bottom", fontsize=7, color="gray")
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
