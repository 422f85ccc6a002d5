"""Components of the page: results, panels of figures, deep links, the theme."""
