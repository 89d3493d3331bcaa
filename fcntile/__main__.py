"""`python -m fcntile` is `fcntile`."""

from fcntile.cli.main import run

run()
