"""The first import of the process that local workers are forked from, and of no other.

It looks for no garbage: what torch and Dask make stays, and to look through it again and again
takes a sixth of the time that torch's import takes. What there is before a fork is frozen, so each
worker looks only at what is its own (`worker.dask_setup`). Freed memory it keeps from the first on:
a heap that numpy's thread had would go to a thread of each worker. With its last worker it
ends at once: to unload what it imported takes 0.6 s, for which whoever reads the command's output
would wait. And it takes no package from the working directory, where Python looks first in a
process like this one (and has looked for its own modules by now); `fcntile` does not either.
"""

import atexit
import gc
import os
import sys

sys.path[:] = [folder for folder in sys.path if folder]
from fcntile.inference.heap import keep_freed_memory  # noqa: E402

gc.disable()
keep_freed_memory()
os.register_at_fork(before=gc.freeze)
atexit.register(os._exit, 0)
