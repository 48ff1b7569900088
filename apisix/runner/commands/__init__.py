"""The author's workbench: commands to write, check, try and look up plugins without a gateway. One module a command."""
