"""A set of runs as one HTML page that needs nothing else, and as CSV and LaTeX tables."""

from harness.report.gather import Group, Line, gather
from harness.report.page import page
from harness.report.tables import csv_table, latex_tables

__all__ = ["Group", "Line", "csv_table", "gather", "latex_tables", "page"]
