"""The tasks of lmms-eval under our pruners: their prompts, data and scoring, our model, budgets, log and store.

lmms-eval is none of our dependencies; what imports it is imported in `harness bridge` alone. docs/lmms.md says how to
install it.
"""
