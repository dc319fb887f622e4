"""Types of the names that ``__init__.py`` imports when they are first used."""

from harness.api import Result as Result
from harness.api import read as read
from harness.api import run as run
from harness.compression.allocation import Allocation as Allocation
from harness.compression.allocation import Counts as Counts
from harness.compression.allocation import Seen as Seen
from harness.compression.allocation import Shape as Shape
from harness.compression.allocation import Uniform as Uniform
from harness.compression.method import Accumulates as Accumulates
from harness.compression.method import LayerState as LayerState
from harness.compression.method import Method as Method
from harness.compression.method import Reranks as Reranks
from harness.compression.method import Scorer as Scorer
from harness.compression.method import require_above as require_above
from harness.compression.scorers import ColumnSums as ColumnSums
from harness.compression.scorers import FirstTokens as FirstTokens
from harness.compression.scorers import Kernel as Kernel
from harness.compression.scorers import Pooling as Pooling
from harness.compression.scorers import Sinks as Sinks
from harness.compression.scorers import SinksThenRecent as SinksThenRecent
from harness.compression.scorers import Window as Window
from harness.compression.scorers import WindowAttention as WindowAttention
from harness.compression.scorers import column_sums as column_sums
from harness.compression.scorers import pool as pool
from harness.compression.scorers import window_attention as window_attention
from harness.compression.selection import Selection as Selection
from harness.compression.wrappers import Rescorer as Rescorer
from harness.compression.wrappers import Wrapper as Wrapper
from harness.engine.engine import Engine as Engine
from harness.errors import BudgetError as BudgetError
from harness.errors import ConfigError as ConfigError
from harness.errors import DataError as DataError
from harness.errors import KvgaugeError as KvgaugeError
from harness.task import Average as Average
from harness.task import Example as Example
from harness.task import Metric as Metric
from harness.task import Suite as Suite
from harness.task import Task as Task
from harness.values import Refusal as Refusal
from harness.values import check as check

__version__: str
