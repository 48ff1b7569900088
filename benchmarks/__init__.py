"""What the runner costs: beside others, over sizes, by stage, and in instructions. README.md says what does what."""
