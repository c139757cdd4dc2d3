"""`python -m observability.why`."""

import sys
import time

import psutil

from local.processes import end_at_ctrl_c

end_at_ctrl_c()

from observability.why.cli import main

if __name__ == "__main__":
    # On a busy machine, the start of Python takes a part of the ten seconds.
    sys.exit(main(sys.argv[1:], spent=time.time() - psutil.Process().create_time()))
