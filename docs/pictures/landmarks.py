"""Draw the layouts of landmarks: ``python docs/pictures/landmarks.py`` writes landmarks.png."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from robustfer.landmarks import convert_landmarks, landmark_layout

COLOURS = {"left": "#1f6fb4", "right": "#d1651b", "middle": "#555555"}
TITLES = {5: "5: face detectors", 19: "19: AFLW", 68: "68: iBUG 300-W", 98: "98: WFLW"}


def face_98() -> np.ndarray:
    """The 98 points (98, 2) of a face, its middle at x = 0, y down; half a face is 1 wide."""
    turn = np.linspace(0, np.pi, 33)
    parts = [np.stack([-np.cos(turn), -0.25 + 1.35 * np.sin(turn) ** 1.1], 1)]
    for side in (-1, 1):  # left, then right
        # From left to right above, back below; the tip is on the outer side.
        along = np.linspace(-1, 1, 5)
        x = side * 0.5 + 0.32 * along
        inner = -side * along  # 1 next to the nose, -1 at the tip
        upper = np.stack([x, -0.66 - 0.1 * (1 - along**2) + 0.05 * (1 - inner)], 1)
        thickness = 0.09 * (1 + inner)[:, None] ** 0.4 * (0, 1)
        lower = (upper + thickness)[inner > -1]
        parts += [upper, lower[::-1]]
    parts.append(np.stack([np.zeros(4), np.linspace(-0.3, 0.15, 4)], 1))
    along = np.linspace(-1, 1, 5)
    parts.append(np.stack([0.2 * along, 0.28 + 0.05 * (1 - along**2)], 1))
    for side in (-1, 1):
        parts.append(_ring((side * 0.47, -0.26), 0.24, 0.13, 0.13, corners=8))
    parts.append(_ring((0, 0.62), 0.42, 0.16, 0.24, corners=12))
    parts.append(_ring((0, 0.63), 0.33, 0.07, 0.12, corners=8))
    parts.append(np.array([[-0.47, -0.26], [0.47, -0.26]]))
    return np.concatenate(parts)


def face(points: int) -> np.ndarray:
    """The synthetic face (K, 2) in a layout of 5, 19, 68 or 98 points."""
    dense = torch.from_numpy(face_98())[None]
    if points == 98:
        return dense[0].numpy()
    seen = torch.ones(1, 98, dtype=torch.bool)
    found, _ = convert_landmarks(
        dense, seen, source=landmark_layout(98), target=landmark_layout(points)
    )
    return found[0].numpy()


def _ring(
    middle: tuple[float, float], half_width: float, above: float, below: float, *, corners: int
) -> np.ndarray:
    """From the left corner over the top to the right one and back below."""
    angle = np.linspace(np.pi, -np.pi, corners, endpoint=False)
    height = np.where(np.sin(angle) > 0, above, below)
    return np.stack([np.cos(angle) * half_width, -np.sin(angle) * height], 1) + middle


def _middles(positions: np.ndarray, points: int) -> np.ndarray:
    """What each point's number is written away from: the middle of its part of the face."""
    middles = positions.copy()
    for name, members in landmark_layout(points).groups.items():
        inside = positions[list(members)].mean(0)
        middles[list(members)] = (0, -0.25) if name == "jaw" else inside
        if name == "nose" and points > 60:  # the bridge: to the right
            middles[list(members[:4])] = positions[list(members[:4])] - (1, 0)
            middles[list(members[4:])] = positions[list(members[4:])] - (0, 1)
    return middles


def draw(path: Path) -> None:
    """Write the picture: the layouts side by side, numbered, coloured by what a mirror swaps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 14), layout="constrained")
    FigureCanvasAgg(figure)
    outline = face_98()
    strokes = [range(33), [*range(33, 42), 33], [*range(42, 51), 42], range(51, 55), range(55, 60)]
    strokes += [[*range(60, 68), 60], [*range(68, 76), 68]]
    strokes += [[*range(76, 88), 76], [*range(88, 96), 88]]
    for axes, points in zip(figure.subplots(2, 2).flat, (5, 19, 68, 98), strict=True):
        for stroke in strokes:
            axes.plot(*outline[list(stroke)].T, color="#d8d2c8", linewidth=1.5, zorder=1)
        positions, swap = face(points), landmark_layout(points).swap
        size = 11 if points < 60 else 8.5
        middles = _middles(positions, points)
        for point, (x, y) in enumerate(positions):
            side = "middle" if swap[point] == point else "left" if x < 0 else "right"
            axes.plot(x, y, "o", markersize=size / 3, color=COLOURS[side], zorder=2)
            away = np.array([x, y]) - middles[point] + (0, -1e-9)
            across, down = away / np.linalg.norm(away) * (0.7 + 0.25 * len(str(point)), 0.85) * size
            axes.annotate(
                str(point), (x, y), xytext=(across, -down), textcoords="offset points",
                ha="center", va="center_baseline", fontsize=size, color=COLOURS[side], zorder=3,
            )  # fmt: skip
        axes.set_title(TITLES[points], fontsize=13)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.axis("off")
    names = [f"{side} of the picture" for side in ("left", "right")] + ["stays where it is"]
    marks = [
        figure.axes[0].plot([], [], "o", color=colour, label=name)[0]
        for name, colour in zip(names, COLOURS.values(), strict=True)
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=12)
    figure.savefig(path, dpi=80)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".png"))
    draw(parser.parse_args().output)
