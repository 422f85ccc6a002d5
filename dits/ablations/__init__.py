"""The paper's ablations: the tables, the grid that trains and evaluates them, and the report."""
