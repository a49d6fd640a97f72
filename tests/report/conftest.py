"""A browser, where there is one."""

import importlib.util
import shutil

import pytest


@pytest.fixture(scope="module")
def chromium():
    path = shutil.which("chromium")
    if path is None or importlib.util.find_spec("playwright") is None:
        pytest.skip("needs playwright and a chromium on the PATH")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
