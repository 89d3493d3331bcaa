"""`fcntile`, knowing the nets of tests/nets.py too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import nets  # noqa: F401  (registers its nets)

from fcntile.cli.main import main

if __name__ == "__main__":  # a worker process imports this too
    main()
