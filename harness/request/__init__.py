"""From words to something that can run: a request, its settings, and the opened model and benchmark."""
