"""Who may use the inspector: its own page, in a browser on this machine, and programs that run there.

Rules that live here:
- The Host must be this machine's own name for itself: a page of another site whose name suddenly leads here (DNS
  rebinding) says another one.
- What another site's page sends says so, in Origin or in Sec-Fetch-Site, and is refused; only a link may lead here.
- The page runs its own scripts and styles alone, is shown in no frame, and nothing of it is kept by the browser.
"""

from collections.abc import Mapping

NAMES = ("127.0.0.1", "localhost")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every response."""


def refusal(path: str, headers: Mapping[str, str], hosts: list[str]) -> str | None:
    """Why a request is refused; None where it is not.

    Args:
        path: of the request.
        headers: of the request, names without case.
        hosts: every Host header.
    """
    if len(hosts) != 1 or hosts[0].partition(":")[0].lower() not in NAMES:
        return f"the inspector is called {' or '.join(NAMES)}, not {', '.join(hosts) or 'nothing'}"
    origin = headers.get("Origin")
    if origin is not None and origin.lower() != f"http://{hosts[0].lower()}":
        return f"the inspector serves its own page only, not one of {origin}"
    site = headers.get("Sec-Fetch-Site", "none")
    is_link = (
        path == "/" and headers.get("Sec-Fetch-Mode") == "navigate" and headers.get("Sec-Fetch-Dest") == "document"
    )
    if site not in ("none", "same-origin") and not is_link:
        return f"the inspector serves its own page only, not one of another site ({site})"
    return None
