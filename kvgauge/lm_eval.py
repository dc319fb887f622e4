"""lm-evaluation-harness from Python: importing this registers its model ``kvgauge``, which the extra needs."""

from harness.drivers.lm_eval import KVGauge

__all__ = ["KVGauge"]
