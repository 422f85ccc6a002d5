"""Used by every package: errors, files, configuration flags, memory, worker processes, terminal output, threads."""
