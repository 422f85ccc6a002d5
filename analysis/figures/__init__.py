"""All plotly figures of the analysis, in one style (`analysis.figures.style`).

They have no titles, since the pages that show them have headings. `layout.meta` has a name for files, a description for
readers who cannot see the figure, and the theme.
"""

from analysis.figures.embedding_map import MapLabels, embedding_map
from analysis.figures.export import figure_html, figure_rows
from analysis.figures.pairs import gap_shift, pair_histograms, similarity_heat_map
from analysis.figures.steps import bump_chart, measure_curves, path_bands, query_curves, retrieval_curve
from analysis.figures.style import CONFIG, PALETTES

__all__ = [
    "CONFIG",
    "PALETTES",
    "MapLabels",
    "bump_chart",
    "embedding_map",
    "figure_html",
    "figure_rows",
    "gap_shift",
    "measure_curves",
    "pair_histograms",
    "path_bands",
    "query_curves",
    "retrieval_curve",
    "similarity_heat_map",
]
