#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "core/file.h"
#include "tests/run.h"

using namespace drydock::tests;

namespace {

using Arguments = std::vector<std::string>;

const Arguments kGood = {"recommend", "--model", "Qwen/Qwen3-8B", "--system", "h100_sxm",  "--gpus", "1",
                         "--isl",     "100",     "--osl",         "10",       "--backend", "vllm"};

Arguments with(const Arguments& more) {
  Arguments all = kGood;
  for (size_t i = 0; i < more.size(); i += 2) {
    const auto at = std::find(all.begin(), all.end(), more[i]);
    if (at != all.end() && i + 1 < more.size())
      *(at + 1) = more[i + 1];
    else
      all.insert(all.end(), more.begin() + static_cast<long>(i),
                 more.begin() + static_cast<long>(std::min(i + 2, more.size())));
  }
  return all;
}

// Exit code 2, nothing on stdout, one line on stderr that names the offender.
void refused(const Arguments& arguments, const std::string& names) {
  const Run run = run_drydock(arguments);
  std::string line;
  for (const std::string& argument : arguments) line += argument.substr(0, 60) + " ";
  CAPTURE(line);
  CAPTURE(run.err);
  CHECK(run.exit_code == 2);
  CHECK(run.out == "");
  CHECK(lines(run.err) == 1);
  CHECK(run.err.starts_with("drydock: "));
  CHECK(run.err.find(names) != std::string::npos);
}

}  // namespace

TEST_CASE("the good question is answered") { CHECK(run_drydock(kGood).exit_code == 0); }

TEST_CASE("unknown names get the nearest known one") {
  refused(with({"--model", "Qwen/Qwen3-8X"}), "did you mean 'Qwen/Qwen3-8B'?");
  refused(with({"--model", "no such thing at all"}), "`drydock models` lists them");
  refused(with({"--system", "h100_sxn"}), "did you mean 'h100_sxm'?");
  refused(with({"--system", "abacus"}), "`drydock systems` lists them");
  refused(with({"--decode-system", "h201_sxm"}), "did you mean");
  refused(with({"--backend", "vlm"}), "did you mean 'vllm'?");
  refused(with({"--mode", "agregated"}), "--mode 'agregated'");
  refused(with({"--precision", "fp7"}), "precision 'fp7'");
  refused(with({"--kv-precision", "int2"}), "KV precision 'int2'");
  refused({"recomend"}, "did you mean 'recommend'?");
  refused(with({"--gpu", "4"}), "did you mean '--gpus'?");
  refused({"db", "inform"}, "did you mean 'info'?");
  refused({}, "a command is missing; drydock --help");
  refused({"db"}, "a command is missing; drydock db --help");
  refused({"db", "query", "--system", "h200"}, "did you mean 'h200_sxm'?");
  refused({"db", "query", "--backend", "trtlm"}, "did you mean 'trtllm'?");
  refused({"db", "query", "--kind", "gem"}, "did you mean 'gemm'?");
}

TEST_CASE("sizes that are zero, negative, not numbers or absurd") {
  for (const std::string flag : {"--isl", "--osl", "--gpus", "--top"})
    for (const std::string value : {"0", "-1", "nan", "inf", "1e3", "99999999999999999999", "abc", "1.5", "", " 4"}) {
      if (value.empty() && flag[2] != 'g') continue;  // an empty --isl is a missing one
      refused(with({flag, value}), flag);
    }
  for (const std::string flag : {"--rate", "--concurrency", "--price"})
    for (const std::string value : {"0", "-3", "nan", "inf", "1e99", "ten"}) refused(with({flag, value}), flag);
  refused(with({"--rate", "0.00001"}), "--rate '0.00001': want a number from 0.0001");
  for (const std::string flag : {"--ttft", "--tpot", "--request-latency"})
    for (const std::string value : {"0", "-3", "nan", "inf", "20 parsecs", "ms", "1e30s"})
      refused(with({flag, value}), flag);
  for (const std::string value : {"1", "1.5", "-0.1", "nan", "x"})
    refused(with({"--prefix-hit", value}), "--prefix-hit");
}

TEST_CASE("what is missing or does not go together") {
  refused({"recommend"}, "--model");
  refused({"recommend", "--model", "Qwen/Qwen3-8B"}, "--system");
  refused({"recommend", "--model", "Qwen/Qwen3-8B", "--system", "h100_sxm", "--osl", "10"}, "--isl");
  refused(with({"--rate", "5", "--concurrency", "5"}), "--rate and --concurrency");
  refused(with({"--mode", "disagg"}), "--mode disagg: prefill and decode apart need --gpus 2 or more");
  refused(with({"--isl", "50000"}), "40960");
  refused({"size", "--model", "Qwen/Qwen3-8B", "--system", "h100_sxm", "--isl", "100", "--osl", "10"},
          "--rate or --concurrency");
  refused({"estimate"}, "--plan or --points");
  refused({"estimate", "--points", "x.csv"}, "--out");
  refused({"validate"}, "--points");
  refused({"db", "import", "--csv", "x.csv"}, "--db");
  refused({"db", "import"}, "--csv");
  refused({"db", "export"}, "--out");
  refused({"db", "merge"}, "--from");
  refused(with({"--isl"}), "--isl");
  Arguments twice = kGood;
  twice.insert(twice.end(), {"--gpus", "2", "--gpus", "4"});
  refused(twice, "--gpus is given 3 times; want it once");
}

TEST_CASE("hostile model files") {
  const Scratch scratch;
  const std::string good =
      R"({"model_type":"llama","hidden_size":64,"vocab_size":100,"max_position_embeddings":4096,"num_hidden_layers":2,)"
      R"("num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":128})";
  CHECK(run_drydock(with({"--model", scratch.write("good.json", good)})).exit_code == 0);
  const auto bad = [&](const std::string& text, const std::string& names) {
    refused(with({"--model", scratch.write("bad.json", text)}), names);
  };
  bad("", "not JSON");
  bad("[1, 2", "not JSON");
  bad("[]", "want a JSON object");
  bad(std::string(1000, '['), "nested deeper than 64");
  bad(R"({"model_type":"llama","model_type":"llama"})", "'model_type' is there twice");
  bad(R"({"model_type":"llama"})", "'hidden_size': missing");
  const auto changed = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    text.replace(text.find(from), from.size(), to);
    return text;
  };
  bad(changed("\"hidden_size\":64", "\"hidden_size\":1e18"), "hidden_size");
  bad(changed("\"hidden_size\":64", "\"hidden_size\":-64"), "hidden_size");
  bad(changed("\"num_hidden_layers\":2", "\"num_hidden_layers\":1000000000"), "num_hidden_layers");
  bad(changed("\"num_attention_heads\":4", "\"num_attention_heads\":\"4\""), "num_attention_heads");
  bad(changed("\"num_key_value_heads\":2", "\"num_key_value_heads\":3"), "num_key_value_heads");
  bad(changed("\"vocab_size\":100,", ""), "vocab_size");
}

TEST_CASE("hostile plans, points and systems") {
  const Scratch scratch;
  refused({"estimate", "--plan", scratch / "none.json"}, "none.json");
  refused({"estimate", "--plan", scratch.path().string()}, "is a folder");
  refused({"estimate", "--plan", scratch.write("p.json", "{\"schema\": \"drydock.plan\"}")}, "'version': missing");
  refused({"estimate", "--plan", scratch.write("p.json", "{\"schema\"")}, "not JSON");
  const std::string out = scratch / "out.csv";
  refused({"estimate", "--points", scratch / "none.csv", "--out", out}, "none.csv");
  refused({"estimate", "--points", scratch.write("p.csv", ""), "--out", out}, "empty");
  refused({"estimate", "--points", scratch.write("p.csv", "mode,model\nagg,x\n"), "--out", out},
          "missing column system, backend, isl, osl");
  refused({"estimate", "--points", scratch.write("p.csv", "mode,model,system,backend,isl,osl\nagg\n"), "--out", out},
          "line 2");
  refused({"estimate", "--points", scratch.write("p.csv", "mode,model,system,backend,isl,osl\n"), "--out",
           scratch / "no/such/dir.csv"},
          "dir.csv");
  refused({"validate", "--points", scratch.write("p.csv", "mode,model,system,backend,isl,osl\n")},
          "missing column ttft_ms, tpot_ms");
  CHECK(!std::filesystem::exists(out));
  refused(with({"--system", scratch.write("s.json", "{\"name\": \"x\"}")}), "'architecture': missing");
}

TEST_CASE("databases and calibrations that are not") {
  const Scratch scratch;
  refused(with({"--db", scratch.path().string()}), "is a folder");
  refused(with({"--db", scratch / "none.db"}), "no such performance database");
  refused(with({"--db", scratch.write("x.db", "hello")}), "want a Drydock performance database");
  refused({"db", "info", "--db", scratch.write("empty.db", "")}, "is empty");
  refused({"db", "query", "--op", "gemm/fp8/m=1"}, "op key");
  refused({"db", "query", "--kind", "gem"}, "--kind");
  refused(with({"--calibration", scratch.write("c.json", "{}")}), "'trtllm': missing");
  const std::string db = scratch / "new.db";
  refused({"db", "import", "--csv", scratch.write("bad.csv", "system,backend,op,latency_us\na,b,c,1\n"), "--db", db},
          "line 2");
  CHECK(!std::filesystem::exists(db));  // nothing half-written
}

TEST_CASE("an output folder that can't be is told before the work") {
  const Scratch scratch;
  refused(with({"--out", scratch.write("file", "x")}), "file");
  refused(with({"--out", scratch / "file/below"}), "below");
  if (::getuid() != 0) {
    std::filesystem::permissions(scratch.path(),
                                 std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
    refused(with({"--out", scratch / "new"}), "new");
    std::filesystem::permissions(scratch.path(), std::filesystem::perms::owner_all);
  }
}

TEST_CASE("serve says in one line what is wrong with drafts") {
  const Scratch scratch;
  const auto plan = [&](const std::string& speculative) {
    return scratch.write("plan" + speculative.substr(0, 3) + ".json",
                         R"({"schema": "drydock.plan", "version": 1, "model": "Qwen/Qwen3-8B", "precision": "bf16",
                             "backend": "drydock", "mode": "agg", "workload": {"isl": 100, "osl": 10}, "speculative": ")" +
                             speculative + R"(",
                             "pools": [{"role": "worker", "system": "h200_sxm", "replicas": 1, "tp": 1,
                                        "max_batch": 8, "max_tokens": 512}]})");
  };
  const auto model = [&](const std::string& name, int vocabulary) {
    std::filesystem::create_directory(scratch.path() / name);
    scratch.write(name + "/config.json",
                  R"({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64,
                      "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
                      "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 512, "rope_theta": 10000,
                      "rms_norm_eps": 1e-6, "hidden_act": "silu", "tie_word_embeddings": false, "attention_bias": false,
                      "vocab_size": )" +
                      std::to_string(vocabulary) + "}");
    return scratch / name;
  };
  const std::string target = model("target", 300), other = model("other", 301), same = model("same", 300);
  const auto serve = [&](const std::string& speculative, std::vector<std::string> more, const char* kv_gib = "0.01") {
    std::vector<std::string> all = {"serve", plan(speculative), "--engine", "cpu", "--model-path", target};
    all.insert(all.end(), {"--port", "0", "--random-weights", "1", "--kv-gib", kv_gib});
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  const std::string draft = "draft:k=4,p=0.7";
  refused(serve("mtp:k=2,p=0.7", {}), "mtp");
  refused(serve("eagle:k=2,p=0.7", {}), "engine cpu drafts by ngram or draft, such as ngram:k=4,p=0.6, not by eagle");
  refused(serve(draft, {}), "want --draft-model-path");
  refused(serve(draft, {"--draft-model-path", scratch / "nowhere"}), "nowhere/config.json");
  refused(serve(draft, {"--draft-model-path", other}), "its vocab_size is 301; want the target's 300");
  refused(serve("ngram:k=4,p=0.7", {"--draft-model-path", same}), "the plan drafts by ngram");
  refused(serve("", {"--draft-model-path", same}), "the plan drafts nothing");
  // A block of each model is 2 x 2 layers x 32 tokens x 32 x 2 bytes = 8 KiB: one of the target fits in 10.5, not both.
  refused(serve(draft, {"--draft-model-path", same}, "0.00001"), "not one block of KV fits");
  refused({"serve", plan(draft), "--draft-model-path", same}, "--draft-model-path: goes with --engine cpu or cuda");
  refused({"serve", plan(draft), "--overlap", "perhaps"}, "--overlap 'perhaps': want on or off");
}

TEST_CASE("serve says in one line what an engine lacks") {
  const Scratch scratch;
  const auto plan = [&](const std::string& tp) {
    return scratch.write("plan" + tp + ".json",
                         R"({"schema": "drydock.plan", "version": 1, "model": "Qwen/Qwen3-8B", "precision": "bf16",
                             "backend": "vllm", "mode": "agg", "workload": {"isl": 100, "osl": 10},
                             "pools": [{"role": "worker", "system": "h200_sxm", "replicas": 1, "tp": )" +
                             tp + R"(, "max_batch": 8, "max_tokens": 512}]})");
  };
  const std::string folder = scratch.path().string();
  std::string many = drydock::core::read_file(plan("1"));
  many.replace(many.find("\"replicas\": 1"), 13, "\"replicas\": 257");
  refused({"serve", scratch.write("many.json", many), "--processes", "--port", "0"}, "--processes: 257 workers");
  const auto configured = [&](const std::string& model, const std::string& secret) {
    return scratch.write("runtime.json", R"({"schema": "drydock.runtime", "version": 1, "model": ")" + model +
                                             R"(", "engine": "emulated", "scheduling": "vllm", "mode": "agg",
                             "router": {"policy": "round_robin"}, "workload": {"isl": 100, "osl": 10}, "secret_env": ")" +
                                             secret + R"(", "workers": [{"name": "worker/0", "role": "worker",
                             "system": "h200_sxm", "parallelism": {}, "precision": "bf16", "kv_block_tokens": 32,
                             "kv_blocks": 1000, "max_batch": 8, "max_tokens": 512}]})");
  };
  for (const char* secret : {"LD_PRELOAD=/tmp/x.so", "../../secret", ""})
    refused({"serve", configured("Qwen/Qwen3-8B", secret), "--processes", "--port", "0"}, "field 'secret_env'");
  refused({"serve", configured("/etc/passwd", "S"), "--port", "0"}, "/etc/passwd: line 1: not JSON");
  refused({"serve", plan("1"), "--engine", "abacus"}, "want emulated, cpu or cuda");
  refused({"serve", plan("1"), "--engine", "cuda"}, "--engine cuda: want --model-path");
  refused({"serve", plan("1"), "--first-gpu", "1"}, "--first-gpu: goes with --engine cuda");
  refused({"serve", plan("2"), "--engine", "cuda", "--model-path", folder}, "config.json");
  const auto plug_in = std::filesystem::read_symlink("/proc/self/exe").parent_path() / "libdrydock_cuda.so";
  if (!std::filesystem::exists(plug_in))
    refused({"serve", plan("1"), "--engine", "cuda", "--model-path", folder}, "libdrydock_cuda.so is not there");
  // No machine has GPU 1023.
  refused({"serve", plan("1"), "--engine", "cuda", "--model-path", folder, "--first-gpu", "1023"}, "--engine cuda: ");
  refused({"serve", plan("1"), "--processes", "--engine", "cuda", "--model-path", folder, "--first-gpu", "1023"},
          "--engine cuda: ");
}
