"""The contract of a method: what the harness relies on, whatever the method decides, checked on tiny models."""

from harness.validate.contract.subject import MISTAKES
from harness.validate.contract.suite import CHECKS, CheckResult, check_method

__all__ = ["CHECKS", "MISTAKES", "CheckResult", "check_method"]
