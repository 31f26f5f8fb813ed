"""The page *Exit trends*."""
