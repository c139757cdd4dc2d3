"""`python -m local`."""

import sys

from local.processes import end_at_ctrl_c

end_at_ctrl_c()

from local.cli import main
from local.stack import build

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], build))
