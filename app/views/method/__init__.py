"""The page *Method*."""
