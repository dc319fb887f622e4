"""The machine: knows no method and no task by name."""

import os

# Read by OpenMP when torch is loaded. Threads that wait for each other by spinning stop all work on a machine whose cores are shared:
# a needle grid on two busy cores took 17 times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
