"""Scripts, one per question: `python -m experiments.NAME --help`."""
