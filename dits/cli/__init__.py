"""The commands of `python -m dits`. Every module adds its commands to the parser."""
