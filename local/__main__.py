"""`python -m local`."""

import signal
import sys

# Until the imports are done Ctrl-C ends the process like any other program, without a traceback.
_handler = signal.signal(signal.SIGINT, signal.SIG_DFL)

from local.cli import main  # noqa: E402
from local.stack import build  # noqa: E402

if __name__ == "__main__":
    signal.signal(signal.SIGINT, _handler)
    sys.exit(main(sys.argv[1:], build))
