"""The command line: `python -m loadtest --help`."""

import sys

from loadtest.run import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
