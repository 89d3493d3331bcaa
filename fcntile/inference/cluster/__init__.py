"""Parts made by the workers of a Dask cluster: on this machine, or wherever Dask runs.

crew.py         who makes the parts of a run
client.py       has them made: gives them out, and takes what comes back
flights.py      parts on their way
stretches.py    which worker makes which
worker.py       what a worker does; walk.py: what it has open meanwhile
connection.py   to a scheduler; local_workers.py: a scheduler and workers of the run's own
forkserver.py   what local workers are forked from
"""
