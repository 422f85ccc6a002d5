"""The analysis report: an HTML page with figures, and its numbers as JSON and CSV."""
