"""Results of other tools, read as rows that they report themselves: shown and compared, never ranked."""
