"""`python -m service.describe`: write the OpenAPI description to stdout, admin routes too."""

import json
import sys
import tempfile
from pathlib import Path

from service.app import create_app
from service.server import Lifetime
from service.settings import Settings


def describe() -> str:
    """Return the description as text; no bundle is needed."""
    with tempfile.TemporaryDirectory() as empty:
        app = create_app(Settings(bundles=Path(empty), admin_token="any"), Lifetime())
        return json.dumps(app.openapi(), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(describe())
