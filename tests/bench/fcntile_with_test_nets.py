"""`fcntile`, knowing the nets of tests/nets.py too."""

import sys
from pathlib import Path

from fcntile.cli import importing
from fcntile.cli.main import run
from fcntile.inference.cluster.local_workers import start_importing

sys.path.insert(0, str(Path(__file__).parents[1]))

if __name__ == "__main__" and "--workers" in sys.argv:
    start_importing("fcntile.predict")  # before torch, as the command does
with importing.quick():
    import nets  # noqa: F401  (registers its nets)

if __name__ == "__main__":  # a worker process imports this too
    run()
