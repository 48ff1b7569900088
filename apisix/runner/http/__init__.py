"""What a plugin sees of a call: `Request`, `Response`, and their headers and arguments."""
