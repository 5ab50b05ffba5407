"""Settings of every test: one thread for each library (several test processes share the cores), no hypothesis deadline."""

import os

from hypothesis import settings

# Libraries read these when they load. Tests of threads set the number of threads themselves.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
os.environ["OMP_WAIT_POLICY"] = "passive"

# A busy machine is not a fault of the code. Other examples are drawn in each run, but for that of .ci/run.
settings.register_profile("bertloom", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("bertloom")
