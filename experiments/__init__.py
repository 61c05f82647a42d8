"""Scripts, one a question: `python -m experiments.NAME --help`."""
