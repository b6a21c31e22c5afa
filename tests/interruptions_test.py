"""Setup, download, sweep and crossval, interrupted at random moments, by SIGINT and by kill -9 in turn, and recovered by the same command.
PARITYBIT_INTERRUPTIONS: how many of each (2; tools/verify-full --part interruptions takes 10); PARITYBIT_SEED: of the moments."""
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import time

from driver import CACHE, PARITYBIT, SILU, Case, environment, main, run
from hub_server import Hub, slowly

COUNT = int(os.environ.get("PARITYBIT_INTERRUPTIONS", "2"))
SEED = int(os.environ.get("PARITYBIT_SEED", str(random.SystemRandom().randrange(1 << 30))))
MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"


class Interruptions(Case):
    """A command that takes `seconds` when nobody interrupts it."""

    def interrupt(self, args, seconds, env=None):
        """Starts it COUNT times, and ends it each time; how often it was ended before it had finished."""
        moments = random.Random(f"{SEED} {args[0]}")
        n_cut = 0
        for i in range(COUNT):
            # The earlier ones are cut early, so that there is something to cut for the later ones.
            moment = moments.uniform(0.05, 0.9) * seconds * (i + 1) / COUNT
            how = (signal.SIGINT, signal.SIGKILL)[i % 2]
            process = subprocess.Popen(["paritybit", *map(str, args)], executable=PARITYBIT, env=environment(env), cwd=self.folder,
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.addCleanup(process.kill)
            try:
                out, err = process.communicate(timeout=moment)
                self.assertEqual(process.returncode, 0, f"seed {SEED}: {out}{err}")
                continue
            except subprocess.TimeoutExpired:
                process.send_signal(how)
            out, err = process.communicate(timeout=60)
            if process.returncode == 0:
                continue  # it was about to end
            n_cut += 1
            # a signal before the handler is there is the system's own end
            self.assertIn(process.returncode, (130, -signal.SIGINT) if how == signal.SIGINT else (-signal.SIGKILL,),
                          f"seed {SEED}: {out}{err}")
            if process.returncode == 130:
                self.assertIn("interrupted", err)
        return n_cut

    def clean(self, args, env=None):
        """Seconds that it takes, and what it says."""
        begin = time.monotonic()
        result = run(*args, env=env, cwd=self.folder)
        self.assertEqual(result.code, 0, f"seed {SEED}: {result}")
        return time.monotonic() - begin, result

    def assert_nobody_left(self, word):
        for _ in range(50):
            left = []
            for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    if word.encode() in entry.read_bytes():
                        left.append(entry.parent.name)
                except OSError:
                    pass
            if not left:
                return
            time.sleep(0.1)
        self.fail(f"seed {SEED}: still running: {left}")

    def test_setup(self):
        base = (pathlib.Path(CACHE.name) / "references").resolve()
        known = json.loads((base / "llama.cpp/reference.json").read_text())
        package = base / known["root"]

        def cache(name):
            references = self.folder / name / "references"
            references.mkdir(parents=True)
            for path in [package, *base.glob(".objects-*")]:
                (references / path.name).symlink_to(path)
            return {"PARITYBIT_CACHE": self.folder / name, "LLAMA_CPP_DIR": None, "HOME": self.folder}
        args = ["setup-cpp-auto", "--offline", "--format", "json"]
        seconds, whole = self.clean(args, cache("whole"))
        env = cache("cut")
        self.assertGreater(self.interrupt(args, seconds, env), 0)
        _, done = self.clean(args, env)
        self.assertEqual({k: done.json["reference"][k] for k in ("name", "version", "digest", "golden_pass") if k in done.json["reference"]},
                         {k: whole.json["reference"][k] for k in ("name", "version", "digest", "golden_pass") if k in whole.json["reference"]})
        self.assertEqual([p.name for p in (self.folder / "cut/references").glob(".tmp-*")], [])
        used = self.crossval("-m", MODEL, "-p", "hi", "-r", "llama.cpp,cpu.library=haswell", "--scope", "logits-only", env=env)
        self.expect(used, "match", 0)

    def test_download(self):
        hub = Hub()
        self.addCleanup(hub.close)
        content = MODEL.read_bytes()
        hub.files["/own/repo/resolve/main/m.gguf"] = content
        args = ["download-model", "--id", "own/repo", "--file", "m.gguf", "--base-url", hub.url, "--out"]
        env = {"HF_TOKEN": None, "http_proxy": None, "HTTP_PROXY": None}

        def slow():
            hub.faults["/own/repo/resolve/main/m.gguf"] = [slowly(len(content) // 20, 0.05)] * (COUNT + 1)
        slow()
        seconds, _ = self.clean([*args, "whole"], env)
        slow()
        self.assertGreater(self.interrupt([*args, "cut"], seconds, env), 0)
        hub.faults.clear()
        self.clean([*args, "cut"], env)
        self.assertEqual((self.folder / "cut/own-repo/m.gguf").read_bytes(), content)
        self.assertEqual(sorted(p.name for p in (self.folder / "cut/own-repo").iterdir()), ["m.gguf", "m.gguf.source.json"])

    def test_crossval(self):
        plugin = self.folder / "engine.so"
        shutil.copy(PARITYBIT.parent.parent / "lib/paritybit/native.so", plugin)

        def args(name):
            return ["crossval", "-m", MODEL, "-p", "And God said, Let there be light", "-n", 8, "-r", plugin, "--noise", "whole",
                    "--receipt", f"{name}.json"]
        caches = {name: {"PARITYBIT_CACHE": self.folder / f"cache-{name}"} for name in ("whole", "cut")}
        seconds, _ = self.clean(args("whole"), caches["whole"])
        self.assertGreater(self.interrupt(args("cut"), seconds, caches["cut"]), 0)
        self.assert_nobody_left(str(plugin))
        for entry in (self.folder / "cache-cut").glob("noise/*/*.json"):
            json.loads(entry.read_text())
        self.clean(args("cut"), caches["cut"])
        whole, cut = (json.loads((self.folder / f"{name}.json").read_text()) for name in ("whole", "cut"))
        for key in ("verdict", "positions", "points", "limits"):
            self.assertEqual(cut[key], whole[key], key)

    def test_sweep(self):
        plan = self.folder / "plan.toml"
        plan.write_text("".join(f'[[model]]\nname = "m{i}"\npath = "{MODEL}"\n' for i in range(2)) +
                        '[[engines]]\nname = "e"\nreference = "native"\n')

        def args(name):
            return ["sweep", "plan.toml", name, "--format", "json"]
        _, whole = self.clean(args("whole"))
        seconds, _ = self.clean(args("warm"))  # what is kept of the first run makes the others shorter
        self.assertGreater(self.interrupt(args("cut"), seconds), 0)
        self.assert_nobody_left(str(self.folder / "cut"))
        kept = {p.name: p.read_bytes() for p in (self.folder / "cut/cells").glob("*.json")}
        _, done = self.clean(args("cut"))
        self.assertEqual(sum(c["from_before"] for c in done.json["cells"]), len(kept), f"seed {SEED}")
        for name, content in kept.items():
            self.assertEqual((self.folder / "cut/cells" / name).read_bytes(), content)
        self.assertEqual([(c["key"], c["state"], c["figures"]) for c in done.json["cells"]],
                         [(c["key"], c["state"], c["figures"]) for c in whole.json["cells"]])


if __name__ == "__main__":
    main()
