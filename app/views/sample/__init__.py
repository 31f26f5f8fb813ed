"""The page *Sample*."""
