"""The server imports the modules of its first page before it answers."""

from __future__ import annotations

from importlib import import_module

from app.main import FIRST_PAGE


def test_the_modules_of_the_first_page_exist() -> None:
    for name in FIRST_PAGE:
        import_module(name)
