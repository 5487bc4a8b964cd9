"""The `trine` command."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line: one line on stderr for what a user can mend, no traceback."""
    from trine.cli import setup
    from trine.cli.app import app

    setup.owns_process = True
    try:
        app()
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except (ValueError, TypeError, RuntimeError, ArithmeticError, OSError, ImportError) as error:
        if os.environ.get("TRINE_TRACEBACK"):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
