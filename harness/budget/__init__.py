"""Token budgets: words to tokens, tokens to a plan, and the check of what was realised."""
