"""The paper's ablations: the tables, the grid that trains them, and the report."""
