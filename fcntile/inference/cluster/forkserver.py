"""The first import of the process that local workers are forked from: it looks for no garbage.

What torch and Dask make stays, and to look through it again and again takes a sixth of the time
that torch's import takes. Each worker looks again, at what is its own (`worker.dask_setup`).
"""

import gc

gc.disable()
