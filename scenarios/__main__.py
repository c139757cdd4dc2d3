"""`python -m scenarios`."""

import sys

from local.processes import end_at_ctrl_c

end_at_ctrl_c()

from scenarios.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
