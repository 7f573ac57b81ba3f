"""One style for every figure of the book: healthy is always blue, broken always vermillion.

The colours are Okabe and Ito's, which people with any kind of colour vision tell apart.
"""

from typing import Any

HEALTHY = "#0072B2"
BROKEN = "#D55E00"
REFERENCE = "#666666"


def subplots(
    rows: int = 1, columns: int = 1, width: float = 6.4, height: float = 4.0
) -> tuple[Any, Any]:
    """matplotlib's figure and axes, drawn without a screen and readable at half their width."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    matplotlib.rcParams.update(
        {
            "font.size": 12,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "lines.linewidth": 2,
            "legend.frameon": False,
        }
    )
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns)
