"""Draw docs/figures/architecture.svg: `python docs/figures/architecture.py`.

Boxes have fills of their own and everything between them is mid-gray: the figure is legible on light and on
dark pages.
"""

from __future__ import annotations

from pathlib import Path

COLORS = {"text": "#3b72b0", "audio": "#b5651d", "video": "#3a8a4d"}
NEUTRAL, LINE, PANEL = "#5b6472", "#7d8590", "#8b949e"
LABELS = {"happy": 0.86, "surprise": 0.55, "sad": 0.09, "anger": 0.05}
ROWS = {"text": 70, "audio": 170, "video": 270}
"""Top of each modality's row."""
HEIGHT = 60
FONT = "font-family='system-ui, Segoe UI, Helvetica, Arial, sans-serif'"


def box(x: float, y: float, width: float, height: float, fill: str, *lines: str, size: int = 14) -> str:
    """A rounded box with centered lines of white text."""
    middle = y + height / 2 - (len(lines) - 1) * size * 0.62
    text = "".join(
        f"<text x='{x + width / 2}' y='{middle + i * size * 1.25:.1f}' fill='#fff' text-anchor='middle' "
        f"font-size='{size - (i > 0)}' dominant-baseline='central'>{line}</text>"
        for i, line in enumerate(lines)
    )
    return f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='8' fill='{fill}'/>{text}"


def arrow(x1: float, y1: float, x2: float, y2: float, color: str = LINE, dashed: bool = False) -> str:
    """A line with a head."""
    dash = " stroke-dasharray='5 4'" if dashed else ""
    return (
        f"<line x1='{x1}' y1='{y1}' x2='{x2}' y2='{y2}' stroke='{color}' stroke-width='1.8' "
        f"marker-end='url(#head)'{dash}/>"
    )


def caption(x: float, y: float, *lines: str, size: int = 13) -> str:
    """Centered gray text."""
    return "".join(
        f"<text x='{x}' y='{y + i * 16}' fill='{LINE}' font-size='{size}' text-anchor='middle'>{line}</text>"
        for i, line in enumerate(lines)
    )


def features(x: float, y: float, color: str) -> str:
    """One small square per label."""
    return "".join(
        f"<rect x='{x}' y='{y + 4 + i * 14}' width='12' height='11' rx='2' fill='{color}' "
        f"fill-opacity='{1 - 0.2 * i:.1f}'/>"
        for i in range(len(LABELS))
    )


def latent_space(x: float, y: float, width: float, height: float) -> str:
    """A panel with clusters of latents: filled where the label is present, open where it is absent."""
    parts = [
        f"<rect x='{x}' y='{y}' width='{width}' height='{height}' rx='8' fill='none' stroke='{PANEL}' "
        f"stroke-width='1.5'/>"
    ]
    offsets = [(-9, -5), (4, -9), (10, 3), (-3, 8), (-12, 5)]
    places = {"text": (0.28, 0.22), "audio": (0.52, 0.49), "video": (0.30, 0.76)}
    for name, (across, down) in places.items():
        for present in (True, False):
            cx, cy = x + across * width + (0 if present else 34), y + down * height + (0 if present else 14)
            for dx, dy in offsets:
                fill = COLORS[name] if present else "none"
                parts.append(
                    f"<circle cx='{cx + dx:.1f}' cy='{cy + dy:.1f}' r='3.6' fill='{fill}' "
                    f"stroke='{COLORS[name]}' stroke-width='1.6'/>"
                )
    return "".join(parts)


def draw() -> str:
    """The whole figure."""
    parts = []
    for name, y in ROWS.items():
        color, middle = COLORS[name], y + HEIGHT / 2
        parts += [
            box(14, y, 78, HEIGHT, color, name),
            arrow(92, middle, 114, middle),
            box(118, y, 124, HEIGHT, color, "Transformer", "or pretrained"),
            arrow(242, middle, 264, middle),
            box(268, y, 108, HEIGHT, color, "label", "attention"),
            arrow(376, middle, 396, middle),
            features(402, y, color),
            arrow(420, middle, 446, middle),
        ]
        for place, x in enumerate((640, 764)):
            parts.append(box(x, y, 86, HEIGHT, color, ("α", "β")[place], size=17))
        for other in ROWS.values():
            parts.append(arrow(726, middle, 758, other + HEIGHT / 2))
            parts.append(arrow(590, middle, 634, other + HEIGHT / 2))
        parts.append(arrow(850, middle, 880, middle))
    parts += [
        latent_space(450, 70, 140, 260),
        box(450, 362, 140, 40, NEUTRAL, "memory bank"),
        arrow(520, 360, 520, 334),
        box(884, 70, 100, 260, NEUTRAL, "joint", "classifier", "of all labels"),
        arrow(984, 200, 1006, 200),
    ]
    for i, (label, score) in enumerate(LABELS.items()):
        y = 106 + i * 52
        parts.append(f"<text x='1012' y='{y}' fill='{LINE}' font-size='14'>{label}</text>")
        parts.append(
            f"<rect x='1012' y='{y + 7}' width='100' height='9' rx='3' fill='{PANEL}' fill-opacity='.3'/>"
        )
        parts.append(
            f"<rect x='1012' y='{y + 7}' width='{100 * score:.0f}' height='9' rx='3' fill='#8e5bb0'/>"
        )
    parts += [
        caption(180, 40, "encoder"),
        caption(322, 40, "label-specific", size=13),
        caption(322, 56, "features"),
        caption(520, 40, "latent space with"),
        caption(520, 56, "contrastive loss, prototypes"),
        caption(745, 40, "two-level reconstruction"),
        caption(745, 56, "of each modality from the others"),
        caption(934, 40, "aggregation"),
        caption(1062, 40, "scores"),
        caption(934, 352, "in training also on", "features shuffled across", "samples and modalities"),
        caption(180, 352, "any modality may be absent"),
    ]
    head = (
        f"<marker id='head' viewBox='0 0 8 8' refX='6.5' refY='4' markerWidth='6' markerHeight='6' "
        f"orient='auto'><path d='M0 0 L8 4 L0 8 z' fill='{LINE}'/></marker>"
    )
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 1124 414' {FONT} role='img' "
        f"aria-label='Architecture of CARAT'><defs>{head}</defs>{''.join(parts)}</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(draw(), encoding="utf-8")
