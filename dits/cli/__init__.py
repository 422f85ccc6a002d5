"""The commands of `python -m dits`, a module each; every module adds its own to the parser."""
