"""Commands, one module each: the author's workbench, to write, check, try and look up plugins without a gateway; and
what an operator needs beside a runner that runs.
"""
