"""``python -m causalprune`` is the ``causalprune`` command."""

import sys

from causalprune_cli.main import main

sys.exit(main())
