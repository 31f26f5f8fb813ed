"""The page *Images*."""
