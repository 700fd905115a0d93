"""Holds `drydock bench` against LLMeter on one served plan. usage: bench_client.py PATH_OF_DRYDOCK"""
import asyncio
import importlib.metadata
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import urllib.request

# Nothing of the client's may ask beyond this machine: whatever goes through a proxy fails.
for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
    os.environ[name] = "http://127.0.0.1:9"
os.environ |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "AWS_EC2_METADATA_DISABLED": "true",
               "LLMETER_DISABLE_ALL_PROGRESS_BARS": "1"}

from llmeter.callbacks.base import Callback  # noqa: E402
from llmeter.endpoints import OpenAICompletionStreamEndpoint  # noqa: E402
from llmeter.runner import Runner  # noqa: E402

MODEL = "Qwen/Qwen3-32B"
ANSWER = 40  # tokens
# One user: what a request takes by itself. Four, with prompts so short that it matters little whether the users march in
# step, as those of drydock do with equal lengths, or not: LLMeter begins them some milliseconds apart.
LOADS = [{"users": 1, "requests": 6, "prompt": 2000}, {"users": 4, "requests": 5, "prompt": 100}]
PLAN = {"schema": "drydock.plan", "version": 1, "model": MODEL, "precision": "fp8", "backend": "drydock", "mode": "agg",
        "workload": {"isl": 1000, "osl": ANSWER},
        "pools": [{"role": "worker", "system": "h200_sxm", "tp": 1, "replicas": 1, "max_batch": 64, "max_tokens": 8192}]}
# LLMeter takes its times in Python, in a thread a user: opening a request costs some milliseconds, which its TTFT has and
# ours has not; reading a chunk some tenths, of which the last one's less the first one's is spread over an answer's gaps.
# Where users bunch up, more prompts share a step of 20 ms with an answer that takes 500 ms.
FIRST_MS, GAP_MS, SHARE = 15.0, 0.3, 0.05


class Server:
    def __init__(self, drydock, folder):
        plan = os.path.join(folder, "plan.json")
        with open(plan, "w") as out:
            json.dump(PLAN, out)
        self.process = subprocess.Popen([drydock, "serve", plan, "--port", "0", "--log-level", "off"],
                                        stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        match = re.search(r":(\d+)$", line.strip())
        assert match, f"the server did not start: {line}"
        self.url = f"http://127.0.0.1:{match.group(1)}"

    def post(self, path, body):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        return urllib.request.urlopen(request, timeout=20)

    def prompt_tokens(self, text):
        with self.post("/tokenize", {"messages": [{"role": "user", "content": text}]}) as answer:
            return json.load(answer)["count"]

    def stop(self):
        """Asked to stop in the middle of an answer, it finishes that."""
        with self.post("/v1/completions", {"prompt": "hello", "max_tokens": ANSWER, "stream": True}) as answer:
            answer.readline()
            self.process.terminate()
            events = answer.read().decode().split("\n\n")
        assert events[-2] == "data: [DONE]" and len(events) >= ANSWER, events[-3:]
        code = self.process.wait(20)
        assert code == 0, f"the server ended with {code}"


class Fresh(Callback):
    """No two prompts begin alike, as ours do not: the server's prefix cache is to find nothing."""
    asked = itertools.count()

    async def before_invoke(self, payload):
        message = payload["messages"][0]
        message["content"] = f"{next(self.asked):06d}" + message["content"][6:]


def by_drydock(drydock, server, load):
    total = load["users"] * load["requests"]
    run = subprocess.run([drydock, "bench", "--url", server.url, "--endpoint", "chat", "--concurrency", str(load["users"]),
                          "--lengths", f"fixed:{load['prompt']},{ANSWER}", "--requests", str(total), "--warmup", "0",
                          "--json"], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout)["measured"]
    assert measured["requests"] == total and measured["lost"] == 0, measured
    assert measured["server_prompt_tokens"] == total * load["prompt"], measured
    return {"ttft": measured["ttft_ms"]["mean"], "tpot": measured["tpot_ms"]["mean"],
            "tokens": total * ANSWER / measured["duration_s"]}


def by_llmeter(server, load):
    endpoint = OpenAICompletionStreamEndpoint(MODEL, api_key="not-needed", base_url=server.url + "/v1", max_retries=0)
    letters = load["prompt"] - server.prompt_tokens("")  # a byte is a token
    payload = endpoint.create_payload("a" * letters, max_tokens=ANSWER, extra_body={"ignore_eos": True})
    endpoint.invoke(endpoint.create_payload("hello", max_tokens=1))  # what Python loads with a first request
    runner = Runner(endpoint, clients=load["users"], n_requests=load["requests"], callbacks=[Fresh()])
    result = asyncio.run(runner.run(payload=payload))
    answers = result.responses
    assert len(answers) == load["users"] * load["requests"], len(answers)
    assert not any(a.error for a in answers), [a.error for a in answers if a.error][0]
    assert all(a.num_tokens_input == load["prompt"] and a.num_tokens_output == ANSWER for a in answers), answers[0]
    return {"ttft": 1e3 * statistics.mean(a.time_to_first_token for a in answers),
            "tpot": 1e3 * statistics.mean(a.time_per_output_token for a in answers),
            "tokens": len(answers) * ANSWER / result.total_test_time}


def apart(load, ours, theirs):
    """What is farther apart than it may be."""
    out = []
    if load["users"] == 1 and not -SHARE * ours["ttft"] <= theirs["ttft"] - ours["ttft"] <= SHARE * ours["ttft"] + FIRST_MS:
        out.append("TTFT")
    if abs(theirs["tpot"] - ours["tpot"]) > SHARE * ours["tpot"] + GAP_MS:
        out.append("TPOT")
    if abs(theirs["tokens"] / ours["tokens"] - 1) > 2 * SHARE:
        out.append("tokens/s")
    return out


def shown(figures):
    return f"TTFT {figures['ttft']:.1f} ms, TPOT {figures['tpot']:.2f} ms, {figures['tokens']:.0f} tokens/s"


def compare(drydock, server, load):
    """What a busy machine adds to one of the two comes and goes: then both measure again."""
    for _ in range(3):
        ours, theirs = by_drydock(drydock, server, load), by_llmeter(server, load)
        wrong = apart(load, ours, theirs)
        print(f"{load['users']} users, drydock bench: {shown(ours)}; LLMeter {importlib.metadata.version('llmeter')}: "
              f"{shown(theirs)}", flush=True)
        if not wrong:
            return
    sys.exit(f"too far apart: {', '.join(wrong)}")


def main():
    with tempfile.TemporaryDirectory() as folder:
        server = Server(sys.argv[1], folder)
        try:
            for load in LOADS:
                compare(sys.argv[1], server, load)
        finally:
            server.stop()


main()
