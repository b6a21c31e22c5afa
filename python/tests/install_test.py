#!/usr/bin/env python3
"""`pip install ./python` builds a wheel with the whole package and leaves nothing behind in the source tree."""
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile

from support import Case, ROOT, cache_folder, main


def files(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


class Install(Case):
    def test_wheel_is_whole_and_the_tree_stays_clean(self):
        source, out = self.folder / "python", self.folder / "out"
        shutil.copytree(ROOT / "python", source, ignore=shutil.ignore_patterns("__pycache__"))
        out.mkdir()
        before = files(source)
        # What pip calls, in the folder and by the backend that pyproject.toml names (requirements.txt has the same version).
        code = """
            import importlib, pathlib, re, sys
            backend = re.search(r'build-backend = "(.*)"', pathlib.Path("pyproject.toml").read_text()).group(1)
            importlib.import_module(backend).build_wheel(sys.argv[1])
        """
        env = {**os.environ, "PYTHONPATH": str(cache_folder() / "python-tests"), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(out)], cwd=source, env=env, check=True)
        self.assertEqual(files(source), before)
        wheel, = out.glob("paritybit-*-py3-none-any.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = [n for n in archive.namelist() if ".dist-info/" not in n]
            metadata = archive.read(next(n for n in archive.namelist() if n.endswith("/METADATA"))).decode()
        self.assertEqual(sorted(names), sorted(f"paritybit/{p.name}" for p in (ROOT / "python/paritybit").glob("*.py")))
        for line in ("Name: paritybit", "Requires-Dist: numpy>=1.21", "Provides-Extra: torch", "Provides-Extra: blake3"):
            self.assertIn(line, metadata.splitlines())

    def test_backend_is_the_pinned_one(self):
        pinned = [line.split()[0] for line in (ROOT / "python/tests/requirements.txt").read_text().splitlines()]
        text = (ROOT / "python/pyproject.toml").read_text()
        self.assertTrue(any(f'requires = ["{requirement}"]' in text for requirement in pinned), pinned)


if __name__ == "__main__":
    main()
