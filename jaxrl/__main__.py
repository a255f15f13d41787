"""`python -m jaxrl`, where the command is not on the path."""

import sys

from jaxrl.cli import main

if __name__ == "__main__":
    sys.exit(main())
