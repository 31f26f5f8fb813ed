"""The page *Overview*: is it worth it, where does it happen, and why?"""
