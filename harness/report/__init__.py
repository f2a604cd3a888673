"""Runs for readers: groups judged beside their controls, comparisons of two runs, pages and tables."""

from harness.report.gather import Group, Line, gather
from harness.report.page import page
from harness.report.tables import csv_table, latex_tables, markdown_tables

__all__ = ["Group", "Line", "csv_table", "gather", "latex_tables", "markdown_tables", "page"]
