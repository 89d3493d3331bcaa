"""The first import of the process that local workers are forked from.

It looks for no garbage: what torch and Dask make stays, and to look through it again and again
takes a sixth of the time that torch's import takes. Each worker looks again, at what is its own
(`worker.dask_setup`). And it takes no package from the working directory, where Python looks first
in a process like this one (and has looked for its own modules by now); `fcntile` does not either.
"""

import gc
import sys

gc.disable()
sys.path[:] = [folder for folder in sys.path if folder]
