"""What every package uses: errors, files, configuration flags, memory, worker processes, terminal output, threads."""
