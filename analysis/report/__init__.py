"""The analysis report: one HTML page with figures, and its numbers as JSON and CSV."""
