"""``python -m causalprune`` is the ``causalprune`` command."""

import os
import sys

if __name__ == "__main__":
    # Python puts the working directory first, where a user's random.py would stand in for the standard library's.
    if sys.path[0] == os.getcwd():  # noqa: PTH109 -- pathlib would be looked for there
        sys.path.append(sys.path.pop(0))
    from causalprune_cli.start import main

    sys.exit(main())
