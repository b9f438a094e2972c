"""URLs that give access to one object, for clients that cannot sign.

Source: <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-query-string-auth.html>.
"""

import hashlib
import hmac
import time
from urllib.parse import quote, urlencode, urlsplit


def presigned(method: str, url: str, region: str, access_key: str, secret_key: str) -> str:
    """`url` with a signature for `method` that holds for an hour."""
    parts, now = urlsplit(url), time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{now[:8]}/{region}/s3/aws4_request"
    query = urlencode(sorted({
        "X-Amz-Algorithm": "AWS4-HMAC-SHA256", "X-Amz-Credential": f"{access_key}/{scope}", "X-Amz-Date": now,
        "X-Amz-Expires": "3600", "X-Amz-SignedHeaders": "host",
    }.items()), quote_via=quote, safe="")
    request = "\n".join([method, quote(parts.path), query, f"host:{parts.netloc}", "", "host", "UNSIGNED-PAYLOAD"])
    text = "\n".join(["AWS4-HMAC-SHA256", now, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{secret_key}".encode()
    for part in [*scope.split("/"), text]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return f"{url}?{query}&X-Amz-Signature={key.hex()}"
