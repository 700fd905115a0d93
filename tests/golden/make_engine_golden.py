#!/usr/bin/env python3
"""Makes the golden logits and tokens of tests/golden/*/: tiny models of each family, computed by Hugging Face transformers.

    pip install torch transformers safetensors numpy && tests/golden/make_engine_golden.py [folder for the weights]

Weights are made up as runtime/weight_source.h says, so that the test makes the same ones and none are committed.
"""
import json
import pathlib
import sys
import tempfile

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent
SEED, STEPS = 7, 200
GOLDEN = 0x9E3779B97F4A7C15
WORD = 2**64 - 1

SHARED = dict(vocab_size=512, hidden_size=64, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
              intermediate_size=160, max_position_embeddings=512, hidden_act="silu", attention_bias=False,
              attention_dropout=0.0, torch_dtype="float32", bos_token_id=1, eos_token_id=2)
MODELS = {
    "llama3": dict(SHARED, architectures=["LlamaForCausalLM"], model_type="llama", num_hidden_layers=3, head_dim=16,
                   rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=False,
                   rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                     original_max_position_embeddings=64)),
    "qwen3": dict(SHARED, architectures=["Qwen3ForCausalLM"], model_type="qwen3", num_hidden_layers=2,
                  rms_norm_eps=1e-6, rope_theta=1000000.0, tie_word_embeddings=True),
    "qwen3_moe": dict(SHARED, architectures=["Qwen3MoeForCausalLM"], model_type="qwen3_moe", num_hidden_layers=3,
                      rms_norm_eps=1e-6, rope_theta=1000000.0, tie_word_embeddings=False, num_experts=8,
                      num_experts_per_tok=2, moe_intermediate_size=48, norm_topk_prob=True, mlp_only_layers=[1],
                      decoder_sparse_step=1),
}


def mix(x):
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def made_up(name, shape):
    digest = 0xCBF29CE484222325
    for byte in name.encode():
        digest = ((digest ^ byte) * 0x100000001B3) & WORD
    with np.errstate(over="ignore"):
        key = mix(np.array([(SEED + GOLDEN) & WORD], np.uint64)) ^ np.uint64(digest)
        places = np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64)
        bits = mix(key + places * np.uint64(GOLDEN))
    u = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24) - np.float32(0.5)
    if len(shape) == 1:
        return (np.float32(1) + u / np.float32(5)).reshape(shape)
    return (u * np.float32(np.sqrt(12.0 / shape[1]))).reshape(shape)


def tensors(c):
    hidden, heads, kv, dim = c["hidden_size"], c["num_attention_heads"], c["num_key_value_heads"], c["head_dim"]
    shapes = {"model.embed_tokens.weight": (c["vocab_size"], hidden), "model.norm.weight": (hidden,)}
    if not c["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (c["vocab_size"], hidden)

    def feed_forward(prefix, inter):
        shapes[prefix + "gate_proj.weight"] = shapes[prefix + "up_proj.weight"] = (inter, hidden)
        shapes[prefix + "down_proj.weight"] = (hidden, inter)

    for i in range(c["num_hidden_layers"]):
        p = f"model.layers.{i}."
        shapes[p + "input_layernorm.weight"] = shapes[p + "post_attention_layernorm.weight"] = (hidden,)
        shapes[p + "self_attn.q_proj.weight"] = (heads * dim, hidden)
        shapes[p + "self_attn.k_proj.weight"] = shapes[p + "self_attn.v_proj.weight"] = (kv * dim, hidden)
        shapes[p + "self_attn.o_proj.weight"] = (hidden, heads * dim)
        if c["model_type"].startswith("qwen3"):
            shapes[p + "self_attn.q_norm.weight"] = shapes[p + "self_attn.k_norm.weight"] = (dim,)
        if "num_experts" in c and i not in c["mlp_only_layers"]:
            shapes[p + "mlp.gate.weight"] = (c["num_experts"], hidden)
            for e in range(c["num_experts"]):
                feed_forward(f"{p}mlp.experts.{e}.", c["moe_intermediate_size"])
        else:
            feed_forward(p + "mlp.", c["intermediate_size"])
    return {name: made_up(name, shape) for name, shape in shapes.items()}


def greedy(model, prompt):
    """Tokens, and the smallest lead of a chosen token's logit over the next: how clear the choices were."""
    ids, cache, out, lead = torch.tensor([prompt]), None, [], float("inf")
    for _ in range(STEPS):
        answer = model(ids, past_key_values=cache, use_cache=True)
        cache = answer.past_key_values
        best = torch.topk(answer.logits[0, -1].double(), 2)
        lead = min(lead, (best.values[0] - best.values[1]).item())
        out.append(int(best.indices[0]))
        ids = torch.tensor([[out[-1]]])
    return out, lead


def make(name, config, folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    save_file(tensors(config), folder / "model.safetensors", metadata={"format": "pt"})
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                              attn_implementation="eager")
    model.eval()
    prompt = [int(t) for t in (np.arange(37) * 97 + 11) % config["vocab_size"]]
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0]
        tokens, lead = greedy(model, prompt)
        # Greedy answers of made-up weights soon repeat themselves; the likeliest tokens after a given text do not.
        text = [(i * i * 31 + 7 * i + 3) % config["vocab_size"] for i in range(STEPS)]
        after = torch.topk(model(torch.tensor([text])).logits[0].double(), 2)
    lead = min(lead, (after.values[:, 0] - after.values[:, 1]).min().item())
    print(f"{name}: smallest lead of a choice {lead:.2e}, largest logit {logits.abs().max():.2f}")
    golden = HERE / name
    golden.mkdir(exist_ok=True)
    (golden / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    places = [0, 17, 36]
    head = json.dumps({
        "transformers": transformers.__version__, "torch": torch.__version__.split("+")[0], "seed": SEED,
        "prompt": prompt, "greedy": tokens, "text": text,
        "likeliest_after": after.indices[:, 0].tolist(), "smallest_lead": float(f"{lead:.3g}"), "places": places})
    rows = ",\n".join("[" + ",".join(f"{x:.8g}" for x in logits[p].tolist()) + "]" for p in places)
    (golden / "golden.json").write_text(head[:-1] + ',\n"logits": [\n' + rows + "]}\n")


def small_file():
    """What the reader is held against: every kind that weights come in, and shapes that are no matrices."""
    import safetensors.torch
    numbers = torch.arange(6, dtype=torch.float32).reshape(2, 3) / 3 - 1
    safetensors.torch.save_file(
        {"f32": numbers, "f16": numbers.half() * 1e-4, "bf16": numbers.bfloat16(), "scalar": torch.tensor(2.5),
         "empty": torch.zeros(0, 4), "bytes": torch.arange(5, dtype=torch.uint8)},
        HERE / "small.safetensors", metadata={"format": "pt"})


torch.set_num_threads(1)
small_file()
where = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
for model_name, model_config in MODELS.items():
    make(model_name, model_config, where / model_name)
