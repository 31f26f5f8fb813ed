"""The page *Sample live*."""
