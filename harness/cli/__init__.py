"""The command line: commands, runs and the reporting of errors."""
