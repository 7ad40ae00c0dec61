"""`python -m service.describe`: write the OpenAPI schema, with admin routes, to stdout."""

import json
import sys
import tempfile
from pathlib import Path

from service.app import create_app
from service.server import Lifetime
from service.settings import Settings


def render_openapi() -> str:
    """Return the OpenAPI schema as JSON; needs no bundle."""
    with tempfile.TemporaryDirectory() as empty:
        app = create_app(Settings(bundles=Path(empty), admin_token="any"), Lifetime())
        return json.dumps(app.openapi(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render_openapi())
