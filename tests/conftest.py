"""What all tests share. Most of what a test needs belongs in the test, where it is read."""

import os

import hypothesis

# Other processes share the machine, so no example has a deadline; in CI the examples are always the same ones.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")
