"""Every exit code of the table in `paritybit --help` through the real binary, each by what really happens to users."""
import os
import re
import shutil
import signal
import subprocess
import time

from driver import PARITYBIT, PLUGINS, SILU, Case, main, run

MODEL = SILU / "tiny-bitnet-silu-tq2_0.gguf"
# What a mistake of paritybit's own would be: an exception that nobody expects, beneath the opening of a file.
MISTAKE = """#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cstring>
#include <stdexcept>
extern "C" int open(const char* path, int flags, ...) {
  if (std::strstr(path, "tiny-bitnet-silu-tq2_0.gguf")) throw std::logic_error("a mistake");
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, 0644));
}
"""
SHORT = ("--prompt", "Hi")


class ExitCodes(Case):
    def crossval(self, *args):
        return run("crossval", "--model", MODEL, "--reference", "native", *SHORT, *args)

    def of_signal(self, number):
        """Of a comparison that is in the midst of its work when the signal arrives."""
        plugin = self.folder / f"{number}.so"
        shutil.copy(PLUGINS / "native.so", plugin)
        cache = self.folder / f"cache-{number}"
        command = [PARITYBIT, "crossval", "--model", MODEL, "--reference", plugin, *SHORT, "--noise", "whole"]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env=dict(os.environ, PARITYBIT_CACHE=str(cache)))
        self.addCleanup(process.kill)
        until = time.monotonic() + 60
        while not list(cache.glob("noise/*/*.json")) and time.monotonic() < until and process.poll() is None:
            time.sleep(0.002)
        self.assertIsNone(process.poll(), "it ended before the signal")
        process.send_signal(number)
        return process.wait(30)

    def with_a_mistake(self):
        source, library = self.folder / "mistake.cc", self.folder / "mistake.so"
        source.write_text(MISTAKE)
        subprocess.run(["c++", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        return run("inspect", MODEL, env={"LD_PRELOAD": str(library)})

    def test_each_of_the_table(self):
        seen = {
            0: self.crossval(),
            1: self.crossval("--set", "ffn.activation=relu2"),
            2: self.crossval("--no-such-flag"),
            3: run("crossval", "--model", MODEL, "--reference", "native", "--prompt", ""),
            4: run("infer", "--model", MODEL, "--engine", "faulty,faulty.mode=crash", *SHORT, "--max-new-tokens", 2),
            5: run("crossval", "--model", self.folder / "none.gguf", "--reference", "native", *SHORT),
            70: self.with_a_mistake(),
            125: self.crossval("--git-bisect", "--candidate", self.folder / "none.so"),
        }
        for code, result in seen.items():
            self.assertEqual(result.code, code, result)
        for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
            self.assertEqual(self.of_signal(number), 128 + number)
        table = run("--help").out.split("Exit codes:")[1]
        told = {int(code) for line in table.splitlines() for code in re.findall(r"\d+", line[:20])}
        self.assertEqual(told, {*seen, 129, 130, 143})


if __name__ == "__main__":
    main()
