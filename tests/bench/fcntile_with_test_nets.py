"""`fcntile`, knowing the nets of tests/nets.py too."""

import sys
from pathlib import Path

from fcntile.cli import importing
from fcntile.cli.main import main

sys.path.insert(0, str(Path(__file__).parents[1]))

with importing.quick():
    import nets  # noqa: F401  (registers its nets)

if __name__ == "__main__":  # a worker process imports this too
    main()
