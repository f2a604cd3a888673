"""Golden files: what the authors' own code gave for stored inputs, and what ours gives for the same."""

from harness.validate.golden.folder import FileResult, validate_file, validate_folder

__all__ = ["FileResult", "validate_file", "validate_folder"]
