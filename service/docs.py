"""/docs: the API to read and try, from files of the installation: no other host is ever asked."""

from __future__ import annotations

from pathlib import Path

import flask_swagger_ui  # type: ignore[import-untyped]  # it has no types
from flask import Blueprint, Response, abort, send_from_directory

blueprint = Blueprint("docs", __name__)

FILES = Path(flask_swagger_ui.__file__).parent / "dist"
SERVED = frozenset({"swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png"})

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>itb-fhir API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
</head>
<body>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

# validatorUrl: null, else Swagger UI shows the API to a validator on the internet.
START = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null, queryConfigEnabled: false
});
"""


@blueprint.get("/docs")
def page() -> Response:
    """The page; Swagger UI fills it from /openapi.json."""
    made = Response(PAGE, mimetype="text/html")
    made.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return made


@blueprint.get("/docs/start.js")
def start() -> Response:
    """What starts Swagger UI, a file of its own so that no inline script need be allowed."""
    return Response(START, mimetype="text/javascript")


@blueprint.get("/docs/<name>")
def file(name: str) -> Response:
    """One of Swagger UI's files."""
    if name not in SERVED:
        abort(404)
    return send_from_directory(FILES, name, max_age=86_400)
