"""Checks of methods: against their authors' outputs (`golden`) and against what every method promises (`contract`)."""
