"""Images to learn from and to read: drawn by the program (`xo`) or loaded from files."""
