"""Setting references up: what is found and taken, what is refused, what is remembered under which name. The builds are the
reference's own libraries in the folders where other makers put them; nothing is fetched."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from driver import CACHE, ROOT, SILU, Case, main, run

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


SHIM = r"""
#include <dlfcn.h>
#include "llama.h"
#define NEXT(name) ((decltype(&name)) dlsym(RTLD_NEXT, #name))
extern "C" {
void llama_backend_init(void) { NEXT(llama_backend_init)(); }
int32_t llama_decode(llama_context *c, llama_batch b) { return NEXT(llama_decode)(c, b); }
int32_t llama_tokenize(const llama_vocab *v, const char *t, int32_t n, llama_token *o, int32_t m, bool s, bool p) {
  return NEXT(llama_tokenize)(v, t, n, o, m, s, p);
}
float *llama_get_logits_ith(llama_context *c, int32_t i) {
  float *logits = NEXT(llama_get_logits_ith)(c, i);
  FAULT
  return logits;
}
}
"""
CMAKE = """cmake_minimum_required(VERSION 3.22)
project(small LANGUAGES CXX)
file(COPY ${PREBUILT}/lib/ DESTINATION ${CMAKE_BINARY_DIR}/bin)
add_library(llama SHARED @SHIM@)
target_include_directories(llama PRIVATE ${CMAKE_SOURCE_DIR}/include)
target_link_options(llama PRIVATE -Wl,--no-as-needed)
target_link_libraries(llama PRIVATE ${CMAKE_BINARY_DIR}/bin/libllama.v0.5.0.so)
set_target_properties(llama PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin BUILD_RPATH "$ORIGIN")
"""

# What the interface of 2024 called otherwise, took a model for its vocabulary or did not have, over the one of today.
OLD_SHIM = r"""
#include <dlfcn.h>
#include <stdio.h>
#include "llama.h"
template <typename R, typename... T> R Now(const char *name, T... args) { return ((R (*)(T...)) dlsym(RTLD_NEXT, name))(args...); }
static const void *V(const llama_model *m) { return Now<const void *>("llama_model_get_vocab", m); }
static void *M(llama_context *c) { return Now<void *>("llama_get_memory", c); }
extern "C" {
void llama_backend_init(void) { fputs("the interface of 2024\n", stderr); Now<void>("llama_backend_init"); }
int32_t llama_decode(llama_context *c, llama_batch b) { return Now<int32_t>("llama_decode", c, b); }
float *llama_get_logits_ith(llama_context *c, int32_t i) { return Now<float *>("llama_get_logits_ith", c, i); }
int32_t llama_tokenize(const llama_model *m, const char *t, int32_t n, llama_token *o, int32_t k, bool s, bool p) {
  return Now<int32_t>("llama_tokenize", V(m), t, n, o, k, s, p);
}
int32_t llama_token_to_piece(const llama_model *m, llama_token t, char *o, int32_t n, int32_t k, bool s) {
  return Now<int32_t>("llama_token_to_piece", V(m), t, o, n, k, s);
}
int32_t llama_n_vocab(const llama_model *m) { return Now<int32_t>("llama_vocab_n_tokens", V(m)); }
llama_token llama_token_bos(const llama_model *m) { return Now<llama_token>("llama_vocab_bos", V(m)); }
llama_token llama_token_eos(const llama_model *m) { return Now<llama_token>("llama_vocab_eos", V(m)); }
bool llama_token_is_eog(const llama_model *m, llama_token t) { return Now<bool>("llama_vocab_is_eog", V(m), t); }
bool llama_add_bos_token(const llama_model *m) { return Now<bool>("llama_vocab_get_add_bos", V(m)); }
void llama_kv_cache_clear(llama_context *c) { Now<void>("llama_memory_clear", M(c), true); }
bool llama_kv_cache_seq_rm(llama_context *c, llama_seq_id s, llama_pos a, llama_pos b) { return Now<bool>("llama_memory_seq_rm", M(c), s, a, b); }
}
"""


def headers_of_2024(include):
    """The headers in a folder, rewritten: no vocabulary beside the model, the functions by their names of then, fewer files."""
    gone = ("llama_version ggml_commit llama_model_load_from_file llama_model_free llama_model_n_layer llama_model_n_embd "
            "llama_model_n_ctx_train llama_model_n_head llama_model_n_head_kv llama_model_n_swa llama_model_chat_template "
            "llama_model_get_vocab llama_init_from_model llama_get_memory llama_memory_[a-z_]+ llama_vocab_n_tokens "
            "llama_vocab_bos llama_vocab_eos llama_vocab_is_eog llama_vocab_get_add_bos").split()
    for name, guest in (("ggml.h", "gguf.h"), ("ggml-backend.h", "ggml-cpu.h"), ("llama.h", None)):
        text = (include / name).read_text() + ((include / guest).read_text() if guest else "")
        for function in gone:
            text, n = re.subn(rf"^ *(LLAMA|GGML)_API[^;{{}}]*\b{function} *\([^;]*\);", "", text, flags=re.M)
            gone = [g for g in gone if g != function] if n else gone
        text = re.sub(r"const struct llama_vocab \* *vocab", "const struct llama_model * model", text)
        text = re.sub(r'#include "(gguf|ggml-cpu)\.h"', "", text).replace("#pragma once", "")
        text = text.replace("    typedef struct llama_memory_i * llama_memory_t;\n", "")
        if name == "llama.h":
            text += ('extern "C" { LLAMA_API void llama_kv_cache_clear(struct llama_context *);\n'
                     "LLAMA_API bool llama_kv_cache_seq_rm(struct llama_context *, llama_seq_id, llama_pos, llama_pos); }\n")
        (include / name).write_text("#pragma once\n" + text)
    for name in ("gguf.h", "ggml-cpu.h"):
        (include / name).unlink()
    return gone


class FromSources(Setup):
    """Small repositories: a library with llama.h's interface, over the release's own."""

    def git(self, *args):
        subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@t", "-c", "protocol.file.allow=always", *map(str, args)], check=True,
                       capture_output=True)

    def commit(self, root, files, submodule=None):
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        if not (root / ".git").exists():
            self.git("init", "-q", "-b", "main", root)
        if submodule:
            self.git("-C", root, "submodule", "add", submodule, "shim")
        self.git("-C", root, "add", "-A")
        self.git("-C", root, "commit", "-qm", "x")

    def repository(self, name="repo", source=SHIM.replace("FAULT", ""), submodule=None):
        root = self.folder / name
        shutil.copytree(PACKAGE / "include", root / "include")
        files = {"CMakeLists.txt": CMAKE.replace("@SHIM@", "shim/shim.cc")}
        self.commit(root, files if submodule else {**files, "shim/shim.cc": source}, submodule)
        return root

    def fetch(self, *args, code=0, env=None):
        result = run("fetch-cpp", "--offline", "--name", "built", "--cmake-flags", f"-DPREBUILT={PACKAGE}", *args,
                     env={**self.env, **(env or {})}, timeout=900)
        self.assertEqual(result.code, code, result)
        return result

    def test_a_repository_with_a_submodule(self):
        shim = self.folder / "shim repo"
        self.commit(shim, {"shim.cc": SHIM.replace("FAULT", "")})
        root = self.repository(submodule=shim)
        self.git("-C", root, "tag", "good")
        head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
        self.commit(root, {"CMakeLists.txt": "nonsense("})
        made = self.fetch("--repo", root, "--tag", "good", "--format", "json")
        reference = self.reference(made)
        self.assertEqual(reference["source"], f"fetch-cpp {root.resolve()} at {head[:12]}")
        loaded = self.libraries("-c", "built,cpu.library=haswell", "-r", "native")[0]
        self.assertTrue(loaded.startswith(reference["root"]), loaded)
        # the second time nothing is cloned or built; --clean builds again
        again = self.fetch("--repo", root, "--rev", "good")
        self.assertNotIn("cloning", again.err)
        self.assertNotIn("building", again.err)
        clean = self.fetch("--repo", root, "--rev", "good", "--clean")
        self.assertEqual(("cloning" in clean.err, "building" in clean.err), (False, True), clean)

    def test_a_bundle_and_variables(self):
        root = self.repository()
        bundle = self.folder / "all.bundle"
        self.git("-C", root, "bundle", "create", bundle, "main")
        made = self.fetch(env={"BITNET_CPP_REPO": bundle, "BITNET_CPP_REV": "main"})
        self.assertIn(f"fetch-cpp {bundle.resolve()} at", made.out)

    def test_a_build_that_breaks_shows_its_errors_and_its_log(self):
        root = self.repository(source=SHIM.replace("FAULT", "no_such_name();"))
        result = self.fetch("--repo", root, code=5)
        self.assertRegex(result.err, r"building failed with \d+:(\n.*)*error: .no_such_name. was not declared")
        log = pathlib.Path(re.search(r"all that it printed:  (\S+)", result.err).group(1))
        self.assertIn("no_such_name", log.read_text())
        self.assertFalse((self.cache / "references/built").exists())
        # mended upstream, the same command goes on
        self.commit(root, {"shim/shim.cc": SHIM.replace("FAULT", "")})
        self.assertIn("is ready", self.fetch("--repo", root, "--force").out)

    def test_what_computes_something_else_is_not_remembered(self):
        root = self.repository(source=SHIM.replace("FAULT", "if (logits) logits[0] += 0, logits[258] *= 1.5f;"))
        result = self.fetch("--repo", root, code=4)
        self.assertIn("the golden forward pass is wrong", result.err)
        self.assertFalse((self.cache / "references/built/reference.json").exists())
        self.expect(self.crossval("-m", MODEL, "-p", "hi", "-r", "built", env=self.env), "error", 2)

    def test_the_interface_of_2024(self):
        """That of bitnet.cpp's own llama.cpp: compiled against, golden, and judged op by op."""
        root = self.repository(source=OLD_SHIM)
        self.assertEqual(headers_of_2024(root / "include"), [], "the release's headers do not have these any more")
        self.commit(root, {})
        self.assertIn("is ready", self.fetch("--repo", root).out)
        result = self.crossval("-m", MODEL, "-p", "And God said", "-n", "2", "-r", "native", "-c", "built,cpu.library=haswell", env=self.env)
        self.expect(result, "match", 0)

    def test_libraries_that_stand_where_the_linker_was_told(self):
        """RPATH, with the CPU libraries in a folder of their own there, as distributions have it."""
        root = self.repository()
        elsewhere = CMAKE.replace("@SHIM@", "shim/shim.cc").replace("/bin)", "/own/deep)").replace("/bin/libllama.v", "/own/deep/libllama.v")
        self.commit(root, {"CMakeLists.txt": elsewhere.replace('"$ORIGIN"', '"$ORIGIN/../own/deep"') + """
file(GLOB cpu ${CMAKE_BINARY_DIR}/own/deep/libggml-cpu-*)
file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/own/deep/ggml)
file(COPY ${cpu} DESTINATION ${CMAKE_BINARY_DIR}/own/deep/ggml/backends0)
file(REMOVE ${cpu})
"""})
        files = [pathlib.Path(library["file"]) for library in self.reference(self.fetch("--repo", root, "--format", "json"))["libraries"]]
        self.assertEqual({file.parent.name for file in files}, {"bin", "deep", "backends0"}, files)
        self.libraries("-c", "built,cpu.library=haswell", "-r", "native")

    def test_what_cannot_be_cloned(self):
        root = self.repository()
        self.assertIn("no-such-tag", self.fetch("--repo", root, "--rev", "no-such-tag", code=5).err)
        self.assertIn("does not exist", self.fetch("--repo", self.folder / "nothing", code=5).err)
        self.assertIn("begins with a dash", self.fetch("--repo", root, "--rev=--upload-pack=x", code=2).err)
        self.assertIn("does not end", run("fetch-cpp", "--repo", root, "--cmake-flags", "-DX='a", env=self.env).err)
        dry = self.fetch("--repo", root, "--dry-run")
        self.assertIn("would run: git clone", dry.err)
        self.assertFalse((self.cache / "references/built").exists())


class Variables(Setup):
    def choices(self, *args, env):
        result = self.crossval("-m", MODEL, "-p", "And", "-r", "native", "--scope", "logits-only", *args, env=env)
        return {choice["key"]: (choice["value"], choice["origin"]) for choice in result.json["choices"]}, result

    def test_a_flag_beats_a_variable_and_the_receipt_says_which(self):
        self.assertEqual(self.choices(env={"OMP_NUM_THREADS": "2,1"})[0]["threads"], ("2", "variable OMP_NUM_THREADS"))
        env = {"OMP_NUM_THREADS": 3, "RAYON_NUM_THREADS": 0, "GGML_NUM_THREADS": 2}
        self.assertEqual(self.choices(env=env)[0]["threads"], ("2", "variable GGML_NUM_THREADS"))
        self.assertEqual(self.choices("-t", 1, env=env)[0]["threads"], ("1", "flag --threads"))
        self.assertEqual(self.choices(env={**env, "BITNET_DETERMINISTIC": 1})[0]["threads"], ("1", "variable BITNET_DETERMINISTIC"))
        self.assertEqual(self.choices(env={})[0]["threads"], ("1", "default"))

    def test_more_threads_than_would_ever_end_are_refused(self):
        n = len(os.sched_getaffinity(0))
        for flags in (("--threads", 4 * n + 1), ("--set", f"threads={4 * n + 1}")):
            result = run("crossval", "-m", MODEL, "-p", "And", "-r", "native", *flags)
            self.assertEqual(result.code, 2, result)
            self.assertIn(f"--threads {n} is as many as there are", result.err)
        self.assertEqual(self.choices(env={"OMP_NUM_THREADS": 4 * n + 1})[0]["threads"],
                         (str(n), f"variable OMP_NUM_THREADS, which says {4 * n + 1}: as many as there are processors"))

    def test_what_has_no_effect_is_said(self):
        env = {"CROSSVAL_WORKERS": 4, "BITNET_STRICT_MODE": 1, "CROSSVAL_ALLOW_CPP_FAIL": 1, "HF_TOKEN": "hf_secret"}
        said = self.choices(env=env)[1].err
        self.assertRegex(said, r"note: CROSSVAL_WORKERS=4 is ignored: use --threads")
        self.assertRegex(said, r"note: CROSSVAL_ALLOW_CPP_FAIL=1 is refused: ")
        self.assertNotIn("hf_secret", said)
        failed = self.crossval("-m", MODEL, "-p", "hi", "-c", "faulty", "-r", "faulty,faulty.mode=crash", env=env)
        self.expect(failed, "engine-failed", 4)

    def test_preflight_lists_all_and_the_cures(self):
        self.setup()
        shutil.rmtree(self.cache / "references/llama.cpp")
        result = run("preflight", "--format", "json", "--require-cpp", env={**self.env, "HF_TOKEN": "hf_secret", "OMP_NUM_THREADS": 2})
        self.assertEqual((result.code, result.json["verdict"]), (3, "incomplete"), result)
        self.assertNotIn("hf_secret", result.out)
        self.assertTrue(any("setup-cpp-auto" in command for command in result.json["next"]))
        variables = {v["name"]: v for v in result.json["variables"]}
        self.assertEqual((variables["OMP_NUM_THREADS"]["value"], variables["HF_TOKEN"]["value"]), ("2", "(set)"))
        self.assertGreater(len(variables), 40)

    def test_no_variable_is_read_past_the_table(self):
        told = {v["name"] for v in run("preflight", "--format", "json").json["variables"]}
        read = {}
        for file in [*(ROOT / "src").rglob("*.cc"), *(ROOT / "src").rglob("*.h")]:
            if not file.name.endswith("_test.cc"):
                for name in re.findall(r'(?:getenv|VariableValue|FoldersOf|variable)\("([A-Za-z_]+)"', file.read_text()):
                    read[name] = file
        self.assertGreater(len(read), 12)
        self.assertEqual(set(read) - told - {"HOME", "PATH"}, set(), read)
        self.assertEqual(run("preflight", "--backend", "bitnet", env=self.env).code, 3)
        self.assertEqual(run("preflight", "--backend", "cuda", env=self.env).code, 2)
        mended = run("preflight", "--backend", "llama", "--repair", "always", env={**self.env, "BITNET_OFFLINE": 1})
        self.assertEqual(mended.code, 0, mended)
        self.assertRegex(mended.out, r"ok +reference llama\.cpp +v0\.5\.0")


if __name__ == "__main__":
    main()
