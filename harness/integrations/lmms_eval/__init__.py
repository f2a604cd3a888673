"""The tasks of lmms-eval as benchmarks, `lmms:TASK`: their prompts, data and scoring; our model, budgets, log, store.

lmms-eval is none of our dependencies; it is imported only where such a task is asked for. docs/lmms.md says how to
install it.
"""
