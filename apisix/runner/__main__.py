"""`python -m apisix.runner` is `apisix-runner`."""

from apisix.runner.cli import main

if __name__ == "__main__":
    main()
