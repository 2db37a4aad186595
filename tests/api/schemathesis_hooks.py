"""What schemathesis is told besides its settings (schemathesis.toml): bytes of uploads are bytes."""

import schemathesis
from hypothesis import strategies

from filestored.api.routes import CHUNK

schemathesis.openapi.media_type(CHUNK, strategies.binary())
