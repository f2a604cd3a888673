"""The embedded reference model and suite, and the code that made both."""
