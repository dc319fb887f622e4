"""The machine: knows no method and no task by name."""

import os

# Read by OpenMP when torch is loaded. Threads that wait for each other by spinning stop nearly all work where other
# processes want the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
