"""Error pages: what nginx says when a status comes without a body.

Rules that live here: which statuses have a page and what it is called. Source: nginx's special response table with
APISIX's footer, as in recorded exchanges of 2.7, 2.15.3 and 3.18.0.
"""

from http import HTTPStatus

TITLES = {
    301: "301 Moved Permanently",
    302: "302 Found",
    303: "303 See Other",
    307: "307 Temporary Redirect",
    308: "308 Permanent Redirect",
    400: "400 Bad Request",
    401: "401 Authorization Required",
    402: "402 Payment Required",
    403: "403 Forbidden",
    404: "404 Not Found",
    405: "405 Not Allowed",
    406: "406 Not Acceptable",
    408: "408 Request Time-out",
    409: "409 Conflict",
    410: "410 Gone",
    411: "411 Length Required",
    412: "412 Precondition Failed",
    413: "413 Request Entity Too Large",
    414: "414 Request-URI Too Large",
    415: "415 Unsupported Media Type",
    416: "416 Requested Range Not Satisfiable",
    421: "421 Misdirected Request",
    429: "429 Too Many Requests",
    500: "500 Internal Server Error",
    501: "501 Not Implemented",
    502: "502 Bad Gateway",
    503: "503 Service Temporarily Unavailable",
    504: "504 Gateway Time-out",
    505: "505 HTTP Version Not Supported",
    507: "507 Insufficient Storage",
}

PAGE = (
    "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n<center><h1>{title}</h1></center>\r\n"
    '<hr><center>openresty</center>\r\n<p><em>Powered by <a href="https://apisix.apache.org/">APISIX</a>.</em></p>'
    "</body>\r\n</html>\r\n"
)


def error_page(status: int) -> bytes | None:
    """The page of `status`, or None where nginx sends an empty body."""
    title = TITLES.get(status)
    return None if title is None else PAGE.format(title=title).encode("ascii")


def reason(status: int) -> str:
    """The reason phrase of a status line; empty for a status that nobody named."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
