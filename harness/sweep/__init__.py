"""A sweep: many runs from one grid of methods, budgets, models, benchmarks and seeds."""
