"""`paritybit download-model` and `tokenizer` against a hub on loopback, with every status and fault that hubs show."""
import hashlib
import json
import os
import pathlib
import re
import signal
import struct
import subprocess
import time

from driver import PARITYBIT, SILU, Case, environment, main, run
from hub_server import Hub, cut, redirect, slowly, status

MODEL = (SILU / "tiny-bitnet-silu-tq1_0.gguf").read_bytes()
SHA256 = hashlib.sha256(MODEL).hexdigest()
PATH = "/own/repo/resolve/main/m.gguf"
TOKEN = "hf_SecretSecretSecret"


class HubCase(Case):
    def setUp(self):
        super().setUp()
        self.hub = Hub()
        self.addCleanup(self.hub.close)
        self.hub.files[PATH] = MODEL
        self.out = self.folder / "models"
        self.target = self.out / "own-repo" / "m.gguf"

    def args(self, *args, hub=None):
        """What is given takes the place of what is usual."""
        usual = {"--id": "own/repo", "--file": "m.gguf", "--out": self.out, "--base-url": (hub or self.hub).url}
        return ["download-model", *(word for pair in usual.items() if pair[0] not in args for word in pair), *args]

    def download(self, *args, code=0, hub=None, env=None, timeout=60):
        result = run(*self.args(*args, hub=hub), env={"HF_TOKEN": None, "http_proxy": None, "HTTP_PROXY": None, **(env or {})},
                     timeout=timeout)
        self.assertEqual(result.code, code, result)
        return result

    def assert_whole(self):
        self.assertEqual(self.target.read_bytes(), MODEL)
        self.assertEqual(sorted(p.name for p in self.target.parent.iterdir()), ["m.gguf", "m.gguf.source.json"])

    def assert_nothing(self):
        self.assertFalse(self.target.exists())


class Plain(HubCase):
    def test_a_file_and_once_more(self):
        result = self.download("--format", "json")
        self.assert_whole()
        self.assertEqual(result.json["files"], [{"path": str(self.target), "bytes": len(MODEL), "how": "fetched", "sha256": SHA256}])
        self.assertIn("verify", result.json["next"][0])
        again = self.download("--format", "json")
        self.assertEqual(again.json["files"][0]["how"], "there, and the hub has no other")
        self.assertEqual(len(self.hub.requests), 2)
        self.assertTrue(self.hub.asked("If-None-Match")[1])
        self.assert_whole()

    def test_a_file_that_has_changed_on_the_hub(self):
        self.download()
        other = (SILU / "tiny-bitnet-silu-tq2_0.gguf").read_bytes()
        self.hub.files[PATH] = other
        self.download()
        self.assertEqual(self.target.read_bytes(), other)

    def test_what_is_there_stays(self):
        self.target.parent.mkdir(parents=True)
        self.target.write_bytes(b"mine")
        self.assertIn("the hub was not asked", self.download().out)
        self.assertEqual(self.target.read_bytes(), b"mine")
        self.assertIn("--force", self.download("--sha256", SHA256, code=5).err)
        self.assertEqual(self.hub.requests, [])
        self.download("--force")
        self.assert_whole()
        self.assertIn("right by its sha256", self.download("--sha256", SHA256.upper()).out)

    def test_a_hub_that_is_gone_harms_nothing(self):
        self.download()
        self.hub.faults[PATH] = [status(503)]
        self.assertIn("the hub was not asked", self.download().out)
        self.assert_whole()

    def test_revisions_and_folders(self):
        self.hub.files["/own/repo/resolve/refs%2Fpr%2F1/q4%20k/n%23.gguf"] = MODEL
        result = run("download-model", "--id", "own/repo", "--file", "q4 k/n#.gguf", "--ref", "refs/pr/1", "--out", self.out,
                     "--base-url", self.hub.url + "/")
        self.assertEqual(result.code, 0, result)
        self.assertEqual((self.out / "own-repo" / "n#.gguf").read_bytes(), MODEL)

    def test_events(self):
        self.hub.faults[PATH] = [status(503), cut(500000)]
        events = [json.loads(line) for line in self.download("--json").out.splitlines()]
        self.assertEqual([e["phase"] for e in events], ["retry", "start", "retry", "start", "done"])
        self.assertEqual((events[1]["resume"], events[1]["start"]), (False, 0))
        self.assertEqual((events[3]["resume"], events[3]["start"]), (True, 500000))
        self.assertIn("HTTP 503", events[0]["msg"])
        self.assertEqual(events[4]["bytes"], len(MODEL))
        events = [json.loads(line) for line in self.download("--json", "--id", "no/thing", code=5).out.splitlines()]
        self.assertEqual(events[-1]["phase"], "failed")
        self.download("--json", "--format", "json", code=2)

    def test_a_set_is_one_model(self):
        parts = [f"s-0000{i}-of-00003.gguf" for i in (1, 2, 3)]
        for name in parts[:2]:
            self.hub.files[f"/own/repo/resolve/main/{name}"] = MODEL
        self.assertIn("HTTP 404", self.download("--file", parts[1], code=5).err)
        self.hub.files[f"/own/repo/resolve/main/{parts[2]}"] = MODEL
        self.hub.requests.clear()
        result = self.download("--file", parts[1], "--format", "json")
        self.assertEqual([pathlib.Path(f["path"]).name for f in result.json["files"]], parts)
        self.assertEqual([f["how"] for f in result.json["files"]], ["there, and the hub has no other"] * 2 + ["fetched"])
        self.download("--file", parts[1], "--sha256", SHA256, code=2)

    def two_at_once(self, *args):
        self.hub.faults[PATH] = [slowly(200000, 0.1)]
        both = [subprocess.Popen([PARITYBIT, *map(str, self.args(*args))], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                for _ in range(2)]
        for process in both:
            out, err = process.communicate(timeout=60)
            self.assertEqual(process.returncode, 0, (out, err))
        self.assert_whole()

    def test_two_at_once_fetch_one_file(self):
        self.two_at_once()
        self.assertEqual(sum(path == PATH and "If-None-Match" not in headers for path, headers in self.hub.requests), 1)

    def test_two_at_once_by_force_do_not_meet(self):
        """The second may not write into what has become the target while it waited."""
        self.two_at_once("--force")
        self.assertEqual(len(self.hub.requests), 2)
        self.assertEqual(self.hub.asked("Range"), [None, None])


class Interrupted(HubCase):
    def test_cut_and_resumed(self):
        self.hub.faults[PATH] = [cut(400000), cut(400000)]
        self.download()
        self.assert_whole()
        self.assertEqual(self.hub.asked("Range"), [None, "bytes=400000-", "bytes=800000-"])
        self.assertEqual(len(set(self.hub.asked("If-Range")[1:])), 1)

    def test_cut_often_is_no_failure_while_bytes_arrive(self):
        self.hub.faults[PATH] = [cut(250000)] * 7
        self.download("--retries", "0")
        self.assert_whole()

    def test_cut_by_a_hub_without_ranges(self):
        self.hub.ranges = False
        self.hub.faults[PATH] = [cut(400000)]
        self.download()
        self.assert_whole()

    def test_changed_between_two_parts(self):
        other = (SILU / "tiny-bitnet-silu-tq2_0.gguf").read_bytes()

        def change(handler, data):
            cut(400000)(handler, data)
            self.hub.files[PATH] = other
        self.hub.faults[PATH] = [change]
        self.download()
        self.assertEqual(self.target.read_bytes(), other)

    def test_a_range_that_was_not_asked_for(self):
        def wrong(handler, data):
            handler.answer(206, data[300000:], {"Content-Range": f"bytes 300000-{len(data) - 1}/{len(data)}"})
        self.hub.faults[PATH] = [cut(400000), wrong]
        self.assertIn("other bytes than those that were asked for", self.download("-v", code=5).err)
        self.assert_nothing()
        self.download()
        self.assert_whole()

    def start(self, *args):
        return subprocess.Popen([PARITYBIT, *map(str, self.args(*args))], env=environment(), stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)

    def kill(self, how):
        self.hub.faults[PATH] = [slowly(100000, 0.05)]
        process = self.start("--quiet")
        part = self.target.with_name("m.gguf.part")
        for _ in range(400):
            if part.exists() and part.stat().st_size > 300000:
                break
            time.sleep(0.02)
        process.send_signal(how)
        out, err = process.communicate(timeout=30)
        self.assertGreater(part.stat().st_size, 300000)
        self.hub.requests.clear()
        self.hub.faults.clear()
        result = self.download()
        self.assert_whole()
        self.assertGreaterEqual(int(re.search(r"bytes=(\d+)-", self.hub.asked("Range")[0])[1]), 300000)
        return process.returncode, out, err, result

    def test_killed(self):
        self.assertEqual(self.kill(signal.SIGKILL)[0], -signal.SIGKILL)

    def test_interrupted(self):
        code, out, err, _ = self.kill(signal.SIGINT)
        self.assertEqual((code, out), (130, ""))
        self.assertIn("the same command goes on", err)

    def test_killed_before_the_last_byte_was_checked(self):
        self.target.parent.mkdir(parents=True)
        self.hub.faults[PATH] = [cut(len(MODEL) - 1)]
        self.download("--retries", "0", "--timeout", "30")
        self.assert_whole()

    def test_a_part_of_something_else_is_not_gone_on_with(self):
        self.target.parent.mkdir(parents=True)
        self.target.with_name("m.gguf.part").write_bytes(b"x" * 5000)
        self.download()
        self.assert_whole()
        self.assertEqual(self.hub.asked("Range"), [None])

    def test_standing_still(self):
        self.hub.faults[PATH] = [slowly(300000, 0, first=2)]
        begin = time.time()
        result = self.download("--timeout", "2", code=5)
        self.assertLess(time.time() - begin, 20)
        self.assertIn("--timeout", result.err)
        self.download()
        self.assert_whole()
        self.assertEqual(self.hub.asked("Range")[-1], "bytes=600000-")


class Refused(HubCase):
    def test_statuses_that_pass(self):
        for code in (408, 425, 429, 500, 502, 503, 504):
            with self.subTest(status=code):
                self.hub.faults[PATH] = [status(code, Retry_After=0)] if code == 429 else [status(code)]
                self.download("--force")
                self.assert_whole()

    def test_statuses_that_stay(self):
        for code in (500, 503):
            self.hub.faults[PATH] = [status(code)] * 10
            self.hub.requests.clear()
            self.assertIn(f"HTTP {code}", self.download("--retries", "2", code=5).err)
            self.assertEqual(len(self.hub.requests), 3)
            self.assert_nothing()

    def test_refusals_are_not_repeated(self):
        for code, said in ((401, "HF_TOKEN"), (403, "HF_TOKEN"), (404, "--id, --file and --rev"), (410, "--rev"), (400, "HTTP 400"), (451, "HTTP 451")):
            with self.subTest(status=code):
                self.hub.faults[PATH] = [status(code, X_Error_Code="GatedRepo", X_Error_Message="Access is \x1b[31m restricted")]
                self.hub.requests.clear()
                result = self.download(code=5)
                self.assertIn(said, result.err)
                self.assertIn("GatedRepo", result.err)
                self.assertNotIn("\x1b", result.err)
                self.assertEqual(len(self.hub.requests), 1)

    def test_throttled(self):
        self.hub.faults[PATH] = [status(429, Retry_After=2)]
        begin = time.time()
        self.download()
        self.assertGreaterEqual(time.time() - begin, 2)
        self.assert_whole()
        # More than there is time for: told at once, and never more than an hour.
        for wait in (100000, "Fri, 31 Dec 2100 23:59:59 GMT"):
            self.hub.faults[PATH] = [status(429, Retry_After=wait)]
            begin = time.time()
            result = self.download("--force", "--timeout", "30", code=5)
            self.assertLess(time.time() - begin, 15)
            self.assertIn("3600 s of waiting", result.err)

    def test_nobody_there(self):
        gone = Hub()
        gone.close()
        begin = time.time()
        self.assertIn(gone.url, self.download("--retries", "1", code=5, hub=gone).err)
        self.assertLess(time.time() - begin, 15)


class Lying(HubCase):
    def test_a_length_that_is_too_long(self):
        def lie(handler, data):
            handler.answer(200, data, {}, length=len(data) + 100)
            handler.close_connection = True
        self.hub.faults[PATH] = [lie] * 9
        self.download("--retries", "1", code=5)
        self.assert_nothing()

    def test_a_length_that_is_too_short(self):
        self.hub.faults[PATH] = [lambda handler, data: (handler.answer(200, data[:-1000], {}), None)[1]] * 9
        result = self.download(code=5)
        self.assertIn("no whole GGUF file", result.err)
        self.assert_nothing()
        self.assertFalse(self.target.with_name("m.gguf.part").exists())

    def test_a_length_that_no_disk_holds(self):
        for length in (1 << 49, 1 << 62):
            self.hub.faults[PATH] = [lambda handler, data: handler.answer(200, data, {}, length=length)]
            self.assertIn("not enough disk space", self.download(code=5).err)
        self.assert_nothing()

    def test_no_length_at_all(self):
        def chunked(handler, data):
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for at in range(0, len(data), 300000):
                piece = data[at:at + 300000]
                handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            handler.wfile.write(b"0\r\n\r\n")
        self.hub.faults[PATH] = [chunked]
        self.download()
        self.assert_whole()

    def spoilt(self):
        return MODEL[:700000] + b"\x01" + MODEL[700001:]

    def test_wrong_bytes(self):
        self.hub.files[PATH] = self.spoilt()
        result = self.download("--sha256", SHA256, code=5)
        self.assertIn(SHA256, result.err)
        self.assertIn(hashlib.sha256(self.spoilt()).hexdigest(), result.err)
        self.assert_nothing()
        self.assertFalse(self.target.with_name("m.gguf.part").exists())
        self.assertEqual(len(self.hub.requests), 2)

    def test_wrong_bytes_before_the_cut(self):
        """What was resumed does not fit: once more from the beginning, which is right."""
        def wrong(handler, data):
            good, self.hub.files[PATH] = data, data
            etag = '"' + hashlib.md5(good).hexdigest() + '"'
            handler.answer(200, self.spoilt()[:800000], {"ETag": etag}, length=len(data))
            handler.close_connection = True
        self.hub.faults[PATH] = [wrong]
        self.download("--sha256", SHA256)
        self.assert_whole()

    def test_the_hub_s_own_digest_counts(self):
        """Large files lie elsewhere; the hub's redirect says their sha256 and size."""
        linked = redirect("/cdn/m.gguf", X_Linked_ETag=f'"{SHA256}"', X_Linked_Size=str(len(MODEL)))
        self.hub.files["/cdn/m.gguf"] = self.spoilt()
        self.hub.faults[PATH] = [linked] * 2
        self.assertIn(SHA256, self.download(code=5).err)
        self.assert_nothing()
        self.hub.files["/cdn/m.gguf"] = MODEL
        self.hub.faults[PATH] = [linked]
        self.download()
        self.assert_whole()
        # The first answer says that it is the same: nobody is asked for bytes.
        self.hub.faults[PATH] = [linked]
        self.hub.requests.clear()
        self.assertIn("the hub has no other", self.download().out)
        self.assertEqual(len(self.hub.requests), 1)

    def test_another_file_under_the_name_while_resuming(self):
        other = (SILU / "tiny-bitnet-silu-tq2_0.gguf").read_bytes()
        self.hub.files.update({"/cdn/a": MODEL, "/cdn/b": other})
        self.hub.faults[PATH] = [redirect("/cdn/a", X_Linked_ETag=f'"{SHA256}"')] + \
            [redirect("/cdn/b", X_Linked_ETag=f'"{hashlib.sha256(other).hexdigest()}"')] * 3
        self.hub.faults["/cdn/a"] = [cut(400000)]
        self.download()
        self.assertEqual(self.target.read_bytes(), other)

    def test_what_is_no_model(self):
        for i, body in enumerate((b"<html>Sign in</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", b"", MODEL[:-5000])):
            self.hub.files[PATH] = body
            self.assertIn("no whole GGUF file", self.download(code=5).err)
            self.assert_nothing()


class Elsewhere(HubCase):
    def setUp(self):
        super().setUp()
        self.other = Hub()
        self.addCleanup(self.other.close)
        self.other.files["/blob"] = MODEL

    def test_the_token_goes_to_nobody_else(self):
        secret = "?X-Amz-Signature=DoNotLogThis"
        for location in (self.other.url + "/blob" + secret, self.other.url.replace("127.0.0.1", "localhost") + "/blob" + secret):
            self.hub.faults[PATH] = [redirect(location)]
            self.hub.requests.clear(), self.other.requests.clear()
            result = self.download("--force", "-v", "--json", env={"HF_TOKEN": TOKEN})
            self.assert_whole()
            self.assertEqual(self.hub.asked("Authorization"), ["Bearer " + TOKEN])
            self.assertEqual(self.other.asked("Authorization"), [None])
            self.assertEqual(self.other.requests[0][0], "/blob" + secret)
            for text in (result.out, result.err, *(p.read_text(errors="replace") for p in self.target.parent.glob("*.json"))):
                self.assertNotIn(TOKEN, text)
                self.assertNotIn("DoNotLogThis", text)

    def test_a_redirect_at_home_keeps_it(self):
        self.hub.files["/home"] = MODEL
        for code in (301, 302, 303, 307, 308):
            self.hub.faults[PATH] = [redirect("/home", code)]
            self.hub.requests.clear()
            self.download("--force", env={"HF_TOKEN": TOKEN})
            self.assertEqual(self.hub.asked("Authorization"), ["Bearer " + TOKEN] * 2)
        self.assert_whole()

    def test_resumed_elsewhere(self):
        self.hub.faults[PATH] = [redirect(self.other.url + "/blob")] * 2
        self.other.faults["/blob"] = [cut(400000)]
        self.download()
        self.assert_whole()
        self.assertEqual(self.other.asked("Range"), [None, "bytes=400000-"])

    def test_redirects_that_lead_nowhere(self):
        for location, said in ((PATH, "redirects"), ("http://example.com/x", "in clear"), ("file:///etc/passwd", "no address"),
                               ("ftp://example.com/x", "no address"), ("http://user:pw@127.0.0.1/x", "no address"), ("", "Location")):
            self.hub.faults[PATH] = [redirect(location)] * 50
            self.assertIn(said, self.download("--retries", "0", code=5).err)
            self.assert_nothing()

    def test_tokens_that_are_none(self):
        for token in ("hf_x\r\nX-Evil: 1", "two words", "\x1b[31m"):
            result = self.download(code=2, env={"HF_TOKEN": token})
            self.assertNotIn("Evil", result.err)
        self.assertEqual(self.hub.requests, [])

    def test_in_clear_over_a_network_no_token_is_sent(self):
        """Through a proxy on loopback, to a hub that is not."""
        self.hub.files["http://hub.example" + PATH] = MODEL
        away = type("Away", (), {"url": "http://hub.example"})
        self.download(hub=away, env={"HF_TOKEN": TOKEN, "HTTP_PROXY": self.hub.url})
        self.assert_whole()
        self.assertEqual(self.hub.asked("Authorization"), [None])


class Names(HubCase):
    def test_no_name_leads_out(self):
        for args in (("--file", "../m.gguf"), ("--file", "a/../../m.gguf"), ("--file", "/etc/passwd"), ("--file", "a//b"), ("--file", ""),
                     ("--file", "a\\b"), ("--file", "a\nb"), ("--id", "../own"), ("--id", "a/b/c"), ("--id", "own/../x"),
                     ("--id", "own/"), ("--id", "%2e%2e/x"), ("--id", ".x/y"), ("--rev", "../x"), ("--rev", ""), ("--rev", "a\nb"),
                     ("--base-url", "huggingface.co"), ("--base-url", "ftp://x"), ("--base-url", "https://me:pw@x"), ("--sha256", "abc"),
                     ("--base-url", "http://x?y"), ("--retries", "-1"), ("--timeout", "0")):
            self.download(*args, code=2)
        self.assertEqual(self.hub.requests, [])
        self.assertFalse(self.out.exists() and any(self.out.rglob("*")))

    def test_offline(self):
        for env, flag in (({}, ["--offline"]), ({"BITNET_OFFLINE": "1"}, [])):
            self.assertIn("offline", self.download(*flag, code=5, env=env).err)
        self.assertEqual(self.hub.requests, [])
        self.download()
        self.hub.requests.clear()
        self.download("--offline")
        self.assertEqual(self.hub.requests, [])
        self.download(env={"BITNET_OFFLINE": "0"})
        self.assertEqual(len(self.hub.requests), 1)

    def test_what_stands_in_the_way(self):
        self.target.mkdir(parents=True)
        self.assertIn("something else than a file", self.download(code=5).err)
        self.target.rmdir()
        part = self.target.with_name("m.gguf.part")
        part.symlink_to(self.folder / "elsewhere")
        self.download(code=5)
        self.assertFalse((self.folder / "elsewhere").exists())
        part.unlink()
        os.mkfifo(part)
        self.assertIn("not a regular file", self.download(code=5).err)

    def test_a_disk_that_is_full(self):
        """A limit on the size of files stands for it."""
        line = " ".join(["ulimit -f 500;", str(PARITYBIT), *map(str, self.args())])
        result = subprocess.run(["bash", "-c", line], env=environment(), capture_output=True, text=True, timeout=60)
        self.assertEqual(result.returncode, 5, result)
        self.assertIn("cannot be written", result.stderr)
        self.download()
        self.assert_whole()


class Packages(Case):
    """Models by package, through the package clients."""

    def test_one_that_is_there(self):
        result = run("download-model", "smollm2", "--format", "json")
        self.assertEqual(result.code, 0, result)
        self.assertTrue(result.json["files"][0]["path"].endswith("SmolLM2-135M-Instruct.Q4_1.gguf"))
        self.assertIn("verify smollm2", result.json["next"][0])

    def test_terms_are_shown_before_the_first_use(self):
        empty = {"PARITYBIT_CACHE": self.folder / "cache"}
        result = run("download-model", "gemma3-270m", env=empty, timeout=300)
        self.assertEqual(result.code, 2, result)
        self.assertIn("Gemma Terms of Use", result.err)
        self.assertIn("download-model gemma3-270m --accept-terms", result.err)
        text = self.folder / "cache/models/gemma-3-270m-terms.html"
        self.assertIn(str(text), result.err)
        self.assertIn("Gemma Terms of Use", text.read_text(errors="replace"))
        # Only what was accepted is fetched, and nothing of it without a network.
        again = run("download-model", "gemma3-270m", "--accept-terms", "--offline", env=empty)
        self.assertEqual(again.code, 5, again)
        self.assertIn("accepted: Gemma is provided", again.err)
        self.assertIn("part1", again.err)
        self.assertNotIn("terms of its own", run("download-model", "gemma3-270m", "--offline", env=empty).err)
        self.assertEqual(run("verify", "gemma3-270m", env=empty).code, 5)

    def test_what_is_unknown(self):
        result = run("download-model", "gemma4", "--offline")
        self.assertEqual(result.code, 2, result)
        self.assertIn("smollm2 gemma3-270m", result.err)
        self.assertEqual(run("download-model", "smollm2", "--id", "a/b").code, 2)


class Llama3Tokenizer(HubCase):
    MIRROR = "/baseten/Meta-Llama-3-tokenizer/resolve/main/tokenizer.json"

    def json_of(self, n):
        return json.dumps({"model": {"type": "BPE", "vocab": {f"t{i}": i for i in range(n)}, "merges": []}, "added_tokens": [
            {"id": n + i, "content": f"<|{i}|>"} for i in range(256)]}).encode()

    def tokenizer(self, *args, code=0, env=None):
        result = run("tokenizer", "--into", self.out, "--base-url", self.hub.url, *args, env={"HF_TOKEN": None, **(env or {})})
        self.assertEqual(result.code, code, result)
        return result

    def test_the_mirror_s_and_the_official_one(self):
        data = self.json_of(128000)
        self.hub.files[self.MIRROR] = data
        self.tokenizer()
        self.assertEqual((self.out / "tokenizer.json").read_bytes(), data)
        self.assertIn("HF_TOKEN", self.tokenizer("--source", "official", code=2).err)
        self.hub.files["/meta-llama/Meta-Llama-3-8B/resolve/main/tokenizer.json"] = data
        self.tokenizer("--source", "official", "--force", env={"HF_TOKEN": TOKEN})
        self.assertEqual(self.hub.asked("Authorization")[-1], "Bearer " + TOKEN)

    def test_another_tokeniser_is_not_taken(self):
        for data in (self.json_of(32000), b"{}", b"[1]", b"<html>", b'{"model": 1}', b"{" * 100000):
            self.hub.files[self.MIRROR] = data
            self.assertIn("not LLaMA 3's", self.tokenizer("--force", code=5).err)
            self.assertFalse((self.out / "tokenizer.json").exists())


if __name__ == "__main__":
    main()
