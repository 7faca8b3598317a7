"""The training tasks: a folder per task, and all of them by name. No other module names one."""

from collections.abc import Mapping
from typing import Any

from assets.training.task import Task
from assets.training.tasks.classification.task import Classification

__all__ = ["TASKS"]

TASKS: Mapping[str, Task[Any, Any]] = {task.name: task for task in (Classification(),)}
