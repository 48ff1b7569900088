"""A client that signs its requests: `KEY=... SECRET=... python client.py METHOD URL [BODY]`. The body is JSON."""

import hashlib
import hmac
import os
import secrets
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit


def signed(key: str, secret: str, method: str, url: str, body: bytes = b"") -> dict[str, str]:
    """The headers of a request that a gateway with `"headers": ["host", "content-type"]` lets in."""
    parts = urlsplit(url)
    query = "&".join(sorted(parts.query.split("&"), key=lambda argument: argument.partition("=")[0]))
    date, nonce, digest = str(int(time.time())), secrets.token_hex(16), hashlib.sha256(body).hexdigest()
    headers = {"Host": parts.netloc, **({"Content-Type": "application/json"} if body else {})}
    lines = ["HMAC-SHA256", key, date, nonce, method, parts.path or "/", query, digest]
    lines += [f"{name.lower()}:{value}" for name, value in headers.items()]
    signature = hmac.new(secret.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    credentials = f"key={key},date={date},nonce={nonce},body={digest},signature={signature}"
    return {**headers, "Authorization": f"HMAC-SHA256 {credentials}"}


def main() -> None:
    method, url, body = sys.argv[1], sys.argv[2], "".join(sys.argv[3:4]).encode()
    headers = signed(os.environ["KEY"], os.environ["SECRET"], method, url, body)
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body or None, headers, method=method)) as answer:
            print(answer.read().decode())
    except urllib.error.HTTPError as refused:
        sys.exit(f"{refused.code}: {refused.read().decode()}")


if __name__ == "__main__":
    main()
