"""Your plugins: every file here is loaded when the runner starts."""
