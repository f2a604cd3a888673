"""Run logs and the database made from them."""
