"""A certificate for localhost that proves nothing: it lets tests talk TLS to themselves."""

import ssl
from pathlib import Path

CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUT65nNvlyIckZ+q2SG6RhFHNCKZUwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMDE1MDg0N1oYDzIxMjYxMDI3
MTUwODQ3WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAASv+XW/FeYrre9FRm+894CJxpRrjU2M62AWAJitZpWXJdGNjJzaGuNc
er/+WwcUmwzc8SYunzuvwhHBPC/vv/zHo28wbTAdBgNVHQ4EFgQUr9Uoo5dFbGFZ
aE3xoJ4J3uHWuj0wHwYDVR0jBBgwFoAUr9Uoo5dFbGFZaE3xoJ4J3uHWuj0wDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgd+w9C0mXtwFU6qI6dZwchlLNtbvhrVRyyLCQpPy4ZvwCIBvw
6NiSEr4W3xSskBKI41S86Zhks84wdy3A9xXudwxp
-----END CERTIFICATE-----
"""

_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgka6VS+gt9kK43DX7
lcHaeV3hRSQ1IXOJrfM/6ZQfYXmhRANCAASv+XW/FeYrre9FRm+894CJxpRrjU2M
62AWAJitZpWXJdGNjJzaGuNcer/+WwcUmwzc8SYunzuvwhHBPC/vv/zH
-----END PRIVATE KEY-----
"""


def of_a_server(folder: Path) -> ssl.SSLContext:
    """Give what a server at localhost needs; the certificate is then in `folder`, for clients to trust."""
    (folder / "certificate.pem").write_text(CERTIFICATE)
    (folder / "key.pem").write_text(_KEY)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
