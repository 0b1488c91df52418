"""What a user chooses for a task that finds a job of its own. A DAG's file needs no more of the lifecycle."""

from __future__ import annotations

from typing import Literal

OnChangedSpec = Literal["fail", "restart", "restart_ended"]
"""
What happens when a task's job runs, or has results, with another spec: fail, or cancel that job and submit anew.
``restart_ended`` submits anew when that job is over, and fails when it is not.
"""

OnClear = Literal["resubmit", "reuse"]
"""What a task does that was cleared after its success: submit its work anew, or go on with the results that it has."""
