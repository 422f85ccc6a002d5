"""The command lines of the analysis: `python -m analysis` and `python -m dits analyse`."""
