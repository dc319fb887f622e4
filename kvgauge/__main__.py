"""``python -m kvgauge`` and the console command ``kvgauge``."""

import sys
from pathlib import Path


def main() -> None:
    """Run the command line of the harness, which lies inside this package in a wheel and beside it in a clone."""
    here = Path(__file__).resolve().parent
    if not (here / "harness").is_dir():
        sys.path.insert(0, str(here.parent))
    if sys.argv[1:3] == ["completion", "--words"]:  # a shortcut, because TAB must not wait for imports
        from harness.cli.commands.completion import candidates
        from harness.printing import unfailing_output

        with unfailing_output():
            print("\n".join(candidates(" ".join(sys.argv[3:]))))
        return
    from harness.cli.main import main as command_line

    command_line()


if __name__ == "__main__":
    main()
