"""Setting references up: what is found and taken, what is refused, what is remembered under which name. The builds are the
reference's own libraries in the folders where other makers put them; nothing is fetched."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

from driver import CACHE, SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
KNOWN = json.loads((pathlib.Path(CACHE.name) / "references/llama.cpp/reference.json").read_text())
BASE = (pathlib.Path(CACHE.name) / "references").resolve()
LIBRARIES = BASE / KNOWN["libraries"][0]["file"]
PACKAGE = BASE / KNOWN["root"]


OBJECTS = tempfile.TemporaryDirectory(prefix="paritybit-objects-")  # what the tests before have compiled


class Setup(Case):
    """A cache of its own, which shares what was compiled for the release's headers."""

    def setUp(self):
        super().setUp()
        self.cache = self.folder / "cache"
        (self.cache / "references").mkdir(parents=True)
        self.addCleanup(self.keep_objects)
        for path in [*BASE.glob(".objects-*"), *pathlib.Path(OBJECTS.name).iterdir()]:
            (self.cache / "references" / path.name).symlink_to(path)
        (self.cache / "references" / PACKAGE.name).symlink_to(PACKAGE)
        self.env = {"PARITYBIT_CACHE": self.cache, "LLAMA_CPP_DIR": None, "LD_LIBRARY_PATH": None, "CMAKE_PREFIX_PATH": None,
                    "HOME": self.folder}

    def keep_objects(self):
        for path in (self.cache / "references").glob(".objects-*"):
            if not path.is_symlink():
                path.rename(pathlib.Path(OBJECTS.name) / path.name)

    def setup(self, *args, env=None, code=0):
        result = run("setup-cpp-auto", "--offline", *args, env={**self.env, **(env or {})}, timeout=900)
        self.assertEqual(result.code, code, result)
        return result

    def build(self, layout, name="build tree"):
        """The release's libraries and headers where a maker of this layout puts them: (libraries, headers)."""
        root = self.folder / name
        for folder, source in zip(layout, ("lib", "include")):
            shutil.copytree(PACKAGE / source, root / folder, symlinks=True, dirs_exist_ok=True)
        return root.resolve()

    def reference(self, result):
        return result.json["reference"]

    def libraries(self, *args, env=None):
        """What each engine of a comparison that matches has loaded as libllama."""
        result = self.crossval("-m", MODEL, "-p", "And God said", *args, "--scope", "logits-only", env={**self.env, **(env or {})})
        self.expect(result, "match", 0)
        return [engine["description"].get("path.libllama", {}).get("value") for engine in result.json["engines"]]


class Finding(Setup):
    def test_a_build_that_is_named_is_taken_where_it_stands(self):
        layouts = {"--from": ("build/bin", "include"), "BITNET_CPP_DIR": ("build/3rdparty/llama.cpp/src", "3rdparty/llama.cpp/include"),
                   "BITNET_CROSSVAL_LIBDIR": ("lib", "include")}
        for source, layout in layouts.items():
            root = self.build(layout, source.strip("-"))
            named = root / "lib" if source == "BITNET_CROSSVAL_LIBDIR" else root
            args, env = (["--from", named], {}) if source == "--from" else ([], {source: named})
            found = self.reference(self.setup("--name", "mine", "--format", "json", *args, env=env))
            self.assertEqual((found["source"], found["library_dir"]), (source, str(root / layout[0])), found)
            self.assertIn("golden forward pass of 32 positions", found["golden_pass"])
            self.assertEqual(self.libraries("-c", "mine,cpu.library=haswell", "-r", "native")[0],
                             str(root / layout[0] / "libllama.v0.5.0.so"))

    def test_a_variable_beats_what_is_remembered_and_a_flag_beats_both(self):
        one, two = self.build(("lib", "include"), "one"), self.build(("lib", "include"), "two")
        self.setup("--from", one)
        again = self.setup("--format", "json")
        self.assertEqual((self.reference(again)["root"], "compil" in again.err), (str(one), False), again)
        self.assertEqual(self.reference(self.setup("--format", "json", env={"BITNET_CPP_DIR": two}))["root"], str(two))
        both = self.setup("--format", "json", "--from", one, env={"BITNET_CPP_DIR": two})
        self.assertEqual(self.reference(both)["root"], str(one))

    def test_a_machine_s_own_builds_are_found(self):
        root = self.build(("lib", "include"), "installed")
        places = {"library path": {"LD_LIBRARY_PATH": root / "lib"}}
        (root / "lib/cmake/llama").mkdir(parents=True)
        (root / "lib/cmake/llama/llama-config.cmake").write_text("")
        places["CMake package llama"] = {"CMAKE_PREFIX_PATH": root}
        (root / "lib/pkgconfig").mkdir()
        (root / "lib/pkgconfig/llama.pc").write_text(f"prefix={root}\nlibdir=${{prefix}}/lib\nName: llama\nDescription: x\nVersion: 1\n")
        places["pkg-config llama"] = {"PKG_CONFIG_PATH": root / "lib/pkgconfig"}
        wheel = self.folder / "site"
        shutil.copytree(PACKAGE / "lib", wheel / "llama_cpp/lib")
        shutil.copytree(PACKAGE / "include", wheel / "include")
        (wheel / "llama_cpp/__init__.py").write_text("raise ImportError('it is looked up, not imported')")
        places["llama-cpp-python"] = {"PYTHONPATH": wheel}
        for source, env in places.items():
            result = self.setup("--dry-run", "--format", "json", env=env)
            self.assertEqual((self.reference(result)["source"], result.json["verdict"]), (source, "dry-run"), result)
        self.assertFalse((self.cache / "references/llama.cpp").exists())

    def test_what_does_not_serve_is_passed_over_and_said(self):
        root = self.build(("lib", "include"))
        shutil.rmtree(root / "include")
        result = self.setup(env={"LD_LIBRARY_PATH": root / "lib"})
        self.assertRegex(result.err, r"passed over: .*llama\.h is not beside it")
        self.assertIn("package node-llama-cpp", result.out)
        named = self.setup("--from", root, code=5)
        self.assertRegex(named.err, r"llama\.h is not beside it")
        self.assertIn("mend it:", named.err)


class Naming(Setup):
    def test_side_by_side(self):
        root = self.build(("lib", "include"))
        self.setup()
        self.setup("--from", root, "--name", "second")
        engines = ["-c", "second,cpu.library=haswell", "-r", "llama.cpp,cpu.library=haswell"]
        paths = self.libraries(*engines)
        self.assertEqual([str(pathlib.Path(path).parent) for path in paths], [f"{root}/lib", f"{PACKAGE}/lib"])
        # whatever the loader is told, each is what was proved
        self.assertEqual(self.libraries(*engines, env={"LD_LIBRARY_PATH": root / "lib"}), paths)

    def test_a_build_that_changes_is_proved_again(self):
        root = self.build(("lib", "include"))
        self.setup("--from", root, "--name", "mine")
        library = root / "lib/libggml-base.so"
        os.utime(library, (1, 1))
        stale = self.crossval("-m", MODEL, "-p", "hi", "-r", "mine", env=self.env)
        self.expect(stale, "incomplete", 3)
        self.assertIn("has changed since it was proved", json.dumps(stale.json))
        self.assertIn("proving it", self.setup("--name", "mine").err)
        self.assertEqual(self.crossval("-m", MODEL, "-p", "hi", "-r", "mine,cpu.library=haswell", "--scope", "logits-only", env=self.env).code, 0)
        library.unlink()
        gone = self.setup("--name", "mine", code=5)
        self.assertIn("libggml-base.so", gone.err)
        self.assertNotIn("package node-llama-cpp", gone.out + gone.err)  # no other engine takes the name of one that was chosen

    def test_names_that_are_none(self):
        for name in ("native", "a/b", "-x", "x.so", "a,b", ".."):
            self.assertEqual(self.setup(f"--name={name}", code=2).out, "", name)
        self.assertIn("v0.4.0", self.setup("--version", "v9.9", code=2).err)
        self.assertEqual(self.setup("--version", "v0.4.0", "--from", "x", code=2).out, "")


class Shells(Setup):
    def test_exports_are_what_a_shell_reads(self):
        self.setup("--from", self.build(("lib", "include"), "it's $HOME `x`"))
        exports = self.setup("--emit", "sh").out
        script = f'eval "$1"; eval "$1"; printf "%s\\n" "$BITNET_CPP_DIR" "$BITNET_CROSSVAL_LIBDIR" "$LD_LIBRARY_PATH"'
        for before in (None, "/opt/lib"):
            env = {k: v for k, v in os.environ.items() if k != "LD_LIBRARY_PATH"}
            if before:
                env["LD_LIBRARY_PATH"] = before
            seen = subprocess.run(["sh", "-c", script, "sh", exports], capture_output=True, text=True, env=env)
            root = str((self.folder / "it's $HOME `x`").resolve())
            self.assertEqual(seen.stdout.splitlines(), [root, f"{root}/lib", f"{root}/lib" + (f":{before}" if before else "")], seen)
        # set by these, the variable names what is remembered
        self.assertIn("remembered", self.setup(env={"BITNET_CPP_DIR": root, "LD_LIBRARY_PATH": f"{root}/lib"}).err)
        for shell, line in (("fish", "set -gx BITNET_CPP_DIR 'it\\'s"), ("pwsh", "$env:BITNET_CPP_DIR = "), ("cmd", '@set "BITNET_CPP_DIR=')):
            self.assertIn(line.split("'it")[0], self.setup("--emit", shell).out)
        self.assertEqual(self.setup("--emit", "zsh", code=2).out, "")


if __name__ == "__main__":
    main()
