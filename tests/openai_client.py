"""Drives drydock_http_demo with the Python package openai. usage: openai_client.py PATH_OF_DEMO"""
import asyncio
import os
import subprocess
import sys
import time

import httpx
import openai

TEXT = "Hello from Drydock: naïve café 🚢."
HELLO = [{"role": "user", "content": "hello"}]
KEY = "a-key-of-the-demo-server"


def wants_error(kind, status, call, **fields):
    try:
        call()
    except kind as error:
        assert error.status_code == status, error
        for name, value in fields.items():
            assert getattr(error, name) == value, (name, error.body)
        return error
    raise AssertionError(f"no {kind.__name__}")


def chats(client):
    whole = client.chat.completions.create(model="demo", messages=HELLO, max_completion_tokens=len(TEXT.encode()))
    assert whole.choices[0].message.content == TEXT
    assert whole.choices[0].message.role == "assistant"
    assert whole.choices[0].finish_reason == "length"
    assert whole.usage.completion_tokens == len(TEXT.encode())
    assert whole.id.startswith("chatcmpl-") and whole.object == "chat.completion"

    pieces = list(client.chat.completions.create(model="demo", messages=HELLO, max_tokens=200, stream=True, stop="café 🚢",
                                                 stream_options={"include_usage": True}))
    assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == "Hello from Drydock: naïve "
    assert pieces[0].choices[0].delta.role == "assistant"
    assert [p.choices[0].finish_reason for p in pieces if p.choices][-1] == "stop"
    assert pieces[-1].usage.total_tokens == pieces[-1].usage.prompt_tokens + pieces[-1].usage.completion_tokens
    assert len({p.id for p in pieces}) == 1

    told = client.chat.completions.create(model="demo", messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=2)
    tokens = told.choices[0].logprobs.content
    assert [t.token for t in tokens] == list("Hell") and [len(t.top_logprobs) for t in tokens] == [2] * 4
    assert tokens[0].bytes == [72] and tokens[0].logprob == -0.5

    both = client.chat.completions.create(model="demo", messages=HELLO, max_tokens=5, n=2)
    assert [c.message.content for c in both.choices] == ["Hello", "Hello"]


def completions(client):
    whole = client.completions.create(model="demo", prompt=["one", "two"], max_tokens=5, logprobs=1, seed=7)
    assert [c.text for c in whole.choices] == ["Hello", "Hello"] and whole.usage.prompt_tokens == 6
    assert whole.choices[0].logprobs.text_offset == [0, 1, 2, 3, 4]
    assert client.completions.create(model="demo", prompt=[104, 105], echo=True, max_tokens=5).choices[0].text == "hiHello"
    pieces = list(client.completions.create(model="demo", prompt="hi", max_tokens=12, stream=True, temperature=0, top_p=0.9,
                                            extra_body={"top_k": 5, "ignore_eos": True, "unknown": 1}))
    assert "".join(p.choices[0].text for p in pieces) == TEXT[:12]


def errors(client, port):
    ask = lambda **fields: client.chat.completions.create(**{"model": "demo", "messages": HELLO, "max_tokens": 5} | fields)
    wants_error(openai.BadRequestError, 400, lambda: ask(temperature=9), param="temperature")
    wants_error(openai.BadRequestError, 400, lambda: ask(max_tokens=100_000), code="context_length_exceeded")
    wants_error(openai.BadRequestError, 400, lambda: ask(tools=[{"type": "function", "function": {"name": "f"}}]), param="tools")
    wants_error(openai.NotFoundError, 404, lambda: ask(model="none"), code="model_not_found")
    of = lambda word, **fields: ask(messages=[{"role": "user", "content": word}], **fields)
    error = wants_error(openai.RateLimitError, 429, lambda: of("[overload]"), code="overloaded")
    assert error.response.headers["retry-after"] == "3"
    wants_error(openai.InternalServerError, 500, lambda: of("[fail]"))
    wants_error(openai.InternalServerError, 504, lambda: of("[stuck]", extra_body={"timeout": 0.2}))
    try:
        list(of("[fail]", stream=True))
        raise AssertionError("a failure in a stream was not told")
    except openai.APIError as told:
        assert "the script says so" in told.message, told
    other = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="not-the-key-of-the-demo", max_retries=0)
    wants_error(openai.AuthenticationError, 401, lambda: other.models.list(), code="invalid_api_key")


def models(client, port):
    assert [m.id for m in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").owned_by == "drydock"
    raw = client.chat.completions.with_raw_response.create(model="demo", messages=HELLO, max_tokens=1,
                                                           extra_headers={"X-Request-Id": "from-python"})
    assert raw.headers["x-request-id"] == "from-python"
    assert httpx.get(f"http://127.0.0.1:{port}/health/ready").status_code == 200


def leaves_early(client, port):
    with client.chat.completions.create(model="demo", messages=[{"role": "user", "content": "[stuck]"}], max_tokens=3, stream=True) as stream:
        next(iter(stream))
    metrics = lambda: httpx.get(f"http://127.0.0.1:{port}/metrics").text
    for _ in range(100):
        if 'drydock_http_answers{model="demo"} 0' in metrics():
            return
        time.sleep(0.05)
    raise AssertionError("an answer stayed open after its client left")


async def many(port):
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0) as client:
        async def one():
            text = ""
            async for piece in await client.chat.completions.create(model="demo", messages=HELLO, max_tokens=60, stream=True):
                text += piece.choices[0].delta.content or ""
            return text
        texts = await asyncio.gather(*(one() for _ in range(50)))
    assert texts == [(TEXT.encode() * 3)[:60].decode(errors="replace")] * 50, texts[0]


def main():
    demo = subprocess.Popen([sys.argv[1], "0"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                            env=os.environ | {"DRYDOCK_DEMO_KEY": KEY, "DRYDOCK_DEMO_QUIET": "1"})
    try:
        port = int(demo.stdout.readline())
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=KEY, max_retries=0, timeout=20)
        chats(client)
        completions(client)
        errors(client, port)
        models(client, port)
        leaves_early(client, port)
        asyncio.run(many(port))
    finally:
        demo.stdin.close()
        assert demo.wait(10) == 0
    print(f"openai {openai.__version__}: all well")


main()
