"""`python -m tests.campaign`: see runner.py."""

import sys

from tests.campaign.runner import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
