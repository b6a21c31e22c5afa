#!/usr/bin/env python3
"""Makes README.md's picture anew, docs/report.webp, of a comparison that is run for it: picture.py BUILD_DIRECTORY"""
import base64
import pathlib
import tempfile

import browser
import driver

PROMPT = "And God said, Let there be light: and there was light."
MODEL = "models/tiny-bitnet-relu2/tiny-bitnet-relu2-tq2_0.gguf"


def main():
    with tempfile.TemporaryDirectory() as folder, browser.Browser(1120, 1130) as tab:
        page = pathlib.Path(folder) / "report.html"
        result = driver.run("crossval", "--model", MODEL, "--reference", "llama.cpp", "--prompt", PROMPT, "--report", page, cwd=driver.ROOT)
        assert result.code == 1, result
        tab.open(page)
        tab.run("document.documentElement.style.scrollbarWidth = 'none'")
        data = tab.send("Page.captureScreenshot", format="webp", quality=85)["data"]
        (driver.ROOT / "docs/report.webp").write_bytes(base64.b64decode(data))


if __name__ == "__main__":
    main()
