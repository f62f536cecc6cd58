"""A slow, strict decoder of Tersor frames and files, written from spec/*.md alone."""
