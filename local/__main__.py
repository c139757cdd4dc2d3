"""`python -m local`."""

import sys

from local.cli import main
from local.stack import build

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], build))
