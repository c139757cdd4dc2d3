"""`python -m observability.story --order 7`."""

import signal
import sys

# Until the imports are done Ctrl-C ends the process like any other program, without a traceback.
_handler = signal.signal(signal.SIGINT, signal.SIG_DFL)

from observability.story.cli import main  # noqa: E402

if __name__ == "__main__":
    signal.signal(signal.SIGINT, _handler)
    sys.exit(main(sys.argv[1:]))
