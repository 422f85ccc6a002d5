"""Every figure of the analysis of the embedding space, as plotly has them, in one look (`figure_style`).

They have no title, as the page that shows them has headings; `layout.meta` holds a name for files, a description for
those who cannot see the figure, and its theme.
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
