from __future__ import annotations
from dreamline.config import Config


class SourceConfig(Config):
    kind: str
    path: str
    name: str | None = None
    caption: str | None = None
