"""Commands round the comparisons: shell completion, the smallest model, GPUs, and the cache."""
import re
import shutil
import struct
import subprocess

from driver import PARITYBIT, ROOT, Case, main, run


def commands():
    return re.findall(r"^  ([a-z-]+) ", run("--help").out.split("Flags:")[0], re.MULTILINE)


def flags_of(command):
    """{flag: what stands for its value} as the help tells."""
    found = {}
    for line in run(command, "--help").out.splitlines():
        names = re.match(r"  ((?:-\w, )?--[a-z0-9-]+(?:, --[a-z0-9-]+)*) ?(\S*)", line)
        if names:
            for name in names.group(1).split(", "):
                found[name] = names.group(2)
    return found


class Completion(Case):
    def bash(self, *words):
        """What bash offers for the last word, in a real bash that sourced the script."""
        script = (f"export PATH={PARITYBIT.parent}:$PATH; source <(paritybit completion bash)\n"
                  'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _paritybit; printf "%s\\n" "${COMPREPLY[@]}"')
        done = subprocess.run(["bash", "-c", script, "bash", "paritybit", *words], capture_output=True, text=True, cwd=self.folder)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        return done.stdout.split()

    def test_commands_and_flags_are_those_of_the_help(self):
        self.assertEqual(set(self.bash("")), {*commands(), "--help", "--version"})
        self.assertEqual(set(self.bash("gen-")), {"gen-fixtures", "gen-mini-gguf"})
        for command in commands():
            self.assertEqual({f for f in self.bash(command, "--")}, {f for f in flags_of(command) if f.startswith("--")}, command)
        self.assertIn("-m", self.bash("crossval", "-"))

    def test_values_and_files(self):
        (self.folder / "model.gguf").touch()
        self.assertEqual(self.bash("crossval", "--format", ""), ["text", "json"])
        self.assertEqual(self.bash("crossval", "--format", "=", "j"), ["json"])
        self.assertEqual(self.bash("crossval", "--format", "="), ["text", "json"])
        self.assertEqual(set(self.bash("crossval", "-m", "")), {"smollm2", "gemma3-270m", "tiny-bitnet-relu2", "tiny-bitnet-silu", "model.gguf"})
        self.assertEqual(self.bash("trace-diff", "mod"), ["model.gguf"])
        self.assertEqual(set(self.bash("completion", "")), {"bash", "zsh", "fish"})
        self.assertEqual(self.bash("infer", "--no-such"), [])

    def test_every_shell_has_every_flag(self):
        for shell in ("zsh", "fish"):
            script = run("completion", shell).out
            for command in commands():
                own = [line for line in script.splitlines() if line.endswith(f"from {command}'") or f"from {command}' " in line] \
                    if shell == "fish" else script.split(f"    {command}) ")[1].split(" ;;")[0].splitlines()
                for flag in flags_of(command):
                    name = ("-l " + flag[2:] if flag.startswith("--") else "-s " + flag[1:]) + " " if shell == "fish" else f"'*{flag}["
                    self.assertTrue(any(name in line for line in own), (shell, command, flag))
            if shutil.which(shell):
                checked = subprocess.run([shell, "--no-execute"] if shell == "fish" else [shell, "-n"], input=script, text=True,
                                         capture_output=True)
                self.assertEqual((checked.returncode, checked.stderr), (0, ""), checked)
        self.assertEqual(run("completion", "tcsh").code, 2)
        self.assertEqual(run("completion").code, 2)
        self.assertEqual(run("completion", "bash", "--format", "json").json["script"], run("completion", "bash").out)


class Mini(Case):
    def test_it_loads_and_runs_in_the_reference(self):
        for version in (3, 2):
            path = self.folder / "deep" / f"mini{version}.gguf"
            made = run("gen-mini-gguf", "--output", path, "--version", version, "--format", "json")
            self.assertEqual(made.code, 0, made)
            data = path.read_bytes()
            self.assertEqual((data[:4], struct.unpack("<I", data[4:8])[0]), (b"GGUF", version))
            self.assertLess(len(data), 200_000)
            self.expect(self.crossval("-m", path, "-p", "Hello", "-n", 2, "-r", "llama.cpp,cpu.library=haswell"), "match", 0)
        self.assertIn("crossval", run("gen-mini-gguf", "--output", path).out)

    def test_versions_that_nobody_reads_and_folders_that_cannot_be(self):
        self.assertEqual(run("gen-mini-gguf", "--version", 1, "--output", self.folder / "m.gguf").code, 2)
        self.assertFalse((self.folder / "m.gguf").exists())
        (self.folder / "file").touch()
        self.assertEqual(run("gen-mini-gguf", "--output", self.folder / "file" / "m.gguf").code, 5)


# Stand-ins for the drivers' libraries, as little as is asked of them.
NVML = r"""
#include <stdlib.h>
#include <string.h>
int nvmlInit_v2(void) { if (getenv("FAKE_CRASH")) abort(); return getenv("FAKE_REFUSES") ? 9 : 0; }
const char *nvmlErrorString(int e) { return e == 9 ? "Driver Not Loaded" : "?"; }
int nvmlSystemGetDriverVersion(char *s, unsigned n) { strncpy(s, "535.1", n); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *v) { *v = 12020; return 0; }
int nvmlDeviceGetCount_v2(unsigned *n) { *n = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, void **d) { *d = (void *)(size_t)(i + 1); return 0; }
int nvmlDeviceGetName(void *d, char *s, unsigned n) { strncpy(s, (size_t)d == 1 ? "Card A" : "Card B", n); return 0; }
int nvmlDeviceGetMemoryInfo(void *d, unsigned long long *m) { m[0] = 8ull << 30; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *d, int *a, int *b) { *a = 9; *b = 0; return 0; }
"""
VULKAN = r"""
#include <stdint.h>
#include <string.h>
int vkCreateInstance(const uint32_t *info, const void *a, void **i) { if (info[0] != 1) return -3; *i = (void *)8; return 0; }
int vkEnumeratePhysicalDevices(void *i, uint32_t *n, void **d) { if (i != (void *)8 || *n < 2) return -1; *n = 2; d[0] = (void *)1; d[1] = (void *)2; return 0; }
void vkGetPhysicalDeviceProperties(void *d, uint32_t *p) {
  p[0] = 1u << 22 | 3u << 12 | 250; p[4] = d == (void *)1 ? 4 : 2; strcpy((char *)(p + 5), d == (void *)1 ? "llvmpipe" : "Card V");
}
void vkGetPhysicalDeviceMemoryProperties(void *d, char *m) {
  *(uint32_t *)(m + 260) = 2; *(uint64_t *)(m + 264) = 4ull << 30; *(uint32_t *)(m + 272) = 1; *(uint64_t *)(m + 280) = 16ull << 30;
}
"""


class Gpus(Case):
    FIELDS = {"cuda", "cuda_version", "metal", "rocm", "rocm_version", "wgpu", "any_available"}

    def libraries(self, **sources):
        for name, source in sources.items():
            library = self.folder / {"nvml": "libnvidia-ml.so.1", "vulkan": "libvulkan.so.1"}[name]
            subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-x", "c", "-", "-o", library], input=source, text=True, check=True)
        return {"LD_LIBRARY_PATH": self.folder}

    def test_none_is_a_clean_answer(self):
        broken = self.folder  # files that are no libraries stand for drivers that are not there
        for name in ("libnvidia-ml.so.1", "libvulkan.so.1"):
            (broken / name).write_text("no library")
        result = run("gpu-preflight", "--format", "json", env={"LD_LIBRARY_PATH": broken})
        self.assertGreaterEqual(set(result.json), self.FIELDS)
        self.assertEqual((result.code, result.json["cuda"], result.json["wgpu"], result.json["metal"]), (0, False, False, False), result)
        if not result.json["rocm"]:
            self.assertEqual(run("gpu-preflight", "--require", env={"LD_LIBRARY_PATH": broken}).code, 5)
            required = run("gpu-preflight", "--require", "--format", "json", env={"LD_LIBRARY_PATH": broken})
            self.assertEqual((required.code, required.json["exit_code"], required.json["any_available"]), (5, 5, False), required)
            self.assertIn("No GPU is usable here", run("gpu-preflight", "--format", "human", env={"LD_LIBRARY_PATH": broken}).out)

    def test_what_the_drivers_tell(self):
        env = self.libraries(nvml=NVML, vulkan=VULKAN)
        told = run("gpu-preflight", "--require", "--format", "json", env=env)
        self.assertEqual((told.code, told.json["any_available"]), (0, True), told)
        self.assertEqual((told.json["cuda_version"], told.json["vulkan_version"], told.json["driver"]), ("12.2", "1.3.250", "535.1"))
        cards = [(d["api"], d["name"], d["memory_bytes"] >> 30) for d in told.json["devices"] if d["api"] != "rocm"]
        self.assertEqual(cards, [("cuda", "Card A", 8), ("cuda", "Card B", 8), ("vulkan", "Card V", 4)])
        self.assertIn("Card V, 4.0 GiB", run("gpu-preflight", env=env).out)

    def test_drivers_that_refuse_or_crash(self):
        env = self.libraries(nvml=NVML, vulkan="int nothing;")
        refused = run("gpu-preflight", "--format", "json", env={**env, "FAKE_REFUSES": "1"})
        self.assertEqual((refused.code, refused.json["cuda"]), (0, False), refused)
        self.assertIn("Driver Not Loaded", refused.json["missing"]["cuda"])
        self.assertIn("lacks functions", refused.json["missing"]["vulkan"])
        crashed = run("gpu-preflight", "--format", "json", env={**env, "FAKE_CRASH": "1"})
        self.assertEqual((crashed.code, crashed.json["cuda"]), (0, False), crashed)
        self.assertIn("crashed", crashed.json["missing"]["cuda"])


class Cache(Case):
    def setUp(self):
        super().setUp()
        self.cache, self.outside = self.folder / "cache", self.folder / "outside"
        for path, size in (("cache/noise/a/run.json", 10_000), ("cache/models/m.gguf", 50_000), ("cache/mine.txt", 5), ("outside/precious", 9)):
            (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / path).write_bytes(bytes(size))
        (self.cache / "noise" / "out").symlink_to(self.outside)
        (self.cache / "references").symlink_to(self.outside)

    def clean(self, *args, stdin=""):
        return run("clean-cache", *args, env={"PARITYBIT_CACHE": self.cache}, stdin=stdin)

    def test_it_shows_and_asks(self):
        for args, answer in (([], ""), ([], "n\n"), ([], "maybe\n"), (["--dry-run"], "y\n"), (["--format", "json"], "y\n")):
            shown = self.clean(*args, stdin=answer)
            self.assertEqual(shown.code, 0, shown)
            self.assertTrue((self.cache / "models" / "m.gguf").exists(), args)
        shown = self.clean("--dry-run").out
        for words in ("noise floors", "models", "a link", "mine.txt", "stays"):
            self.assertIn(words, shown)
        told = self.clean("--format", "json").json
        self.assertEqual((told["deleted"], {item["name"] for item in told["items"]}), (False, {"models", "noise", "references"}))
        size = sum(int(line.split()[0]) for line in subprocess.run(
            ["du", "-k", "-s", *(self.cache / name for name in ("models", "noise"))], capture_output=True, text=True).stdout.splitlines())
        self.assertEqual(told["bytes"] >> 10, size)

    def test_links_are_removed_and_never_followed(self):
        done = self.clean("--yes")
        self.assertEqual(done.code, 0, done)
        self.assertEqual([path.name for path in self.cache.iterdir()], ["mine.txt"])
        self.assertTrue((self.outside / "precious").exists())
        self.assertIn("empty", self.clean().out)

    def test_yes_on_stdin_and_one_part_alone(self):
        self.assertEqual(self.clean("--only", "noise", stdin="y\n").code, 0)
        self.assertEqual({path.name for path in self.cache.iterdir()}, {"models", "references", "mine.txt"})
        self.assertEqual(self.clean("--only", "mine.txt", "--yes").code, 2)
        self.assertEqual(self.clean("--only", "../outside", "--yes").code, 2)
        self.assertEqual(self.clean("--yes", "--dry-run").code, 2)
        self.assertTrue((self.cache / "mine.txt").exists() and (self.outside / "precious").exists())

    def test_no_cache_is_nothing_to_delete(self):
        result = run("clean-cache", "--yes", env={"PARITYBIT_CACHE": self.folder / "none"})
        self.assertEqual((result.code, "empty" in result.out), (0, True), result)

    def test_all_that_is_written_there_is_known(self):
        known = set(re.findall(r'^    \{"([^"]+)", "', (ROOT / "src/setup/cache_folder.cc").read_text(), re.MULTILINE))
        written = set()
        for path in (ROOT / "src").rglob("*.cc"):
            written |= set(re.findall(r'CacheDir\(\) / "([^"]+)"', path.read_text()))
        self.assertGreater(len(written), 5)
        self.assertLessEqual(written, known)


class Refused(Case):
    def test_documented_commands_of_another_job_name_ours(self):
        for command, ours in (("analyze-library", "setup-cpp-auto"), ("vendor-ggml", "setup-cpp-auto"), ("gpu-smoke", "gpu-preflight"),
                              ("grid-check", "check-features"), ("compare-metrics", "crossval")):
            result = run(command, "some/path", "--format", "json")
            self.assertEqual((result.code, result.codes()), (2, ["unsupported"]), result)
            self.assertIn(f"`{ours}`", result.json["reasons"][0]["text"])
            self.assertIn(ours, commands())


if __name__ == "__main__":
    main()
