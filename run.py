"""The command line of a clone."""

from harness.cli.main import main

main()
