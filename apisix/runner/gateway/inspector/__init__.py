"""The inspector: a page of `apisix-runner dev` that shows what becomes of each request, plugin by plugin.

- `hub`: the last exchanges, and who watches them.
- `views`: an exchange as the page gets it.
- `receiver`: what the runner's worker tells about its plugins.
- `page`: the HTTP server, and who may use it.
- `static`: HTML, CSS and JavaScript, as they are.

The gateway does not know it: it has an observer, and `dev` puts the two together.
"""

from apisix.runner.gateway.inspector.page import Inspector

__all__ = ["Inspector"]
