// A command that is refused leaves its folder as it found it, whatever the input that was bad.
#include <doctest/doctest.h>

#include <filesystem>
#include <set>
#include <sstream>

#include "tests/run.h"

using namespace drydock::tests;
namespace fs = std::filesystem;

namespace {

const std::string kQuestion =
    "recommend --model Qwen/Qwen3-32B --precision fp8 --system h200_sxm --backend trtllm --gpus 2 --isl 400 --osl 100 ";

const char kConfig[] =
    R"({"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 4,
  "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 32000, "max_position_embeddings": 4096})";

const char kPlan[] = R"({"schema": "drydock.plan", "version": 1, "model": "Qwen/Qwen3-32B", "precision": "fp8",
  "backend": "trtllm", "mode": "agg", "pools": [{"role": "worker", "system": "h200_sxm", "tp": 2, "max_batch": 8,
  "max_tokens": 8192}], "workload": {"isl": 400, "osl": 100}})";

const char kPoints[] =
    "mode,model,system,backend,isl,osl,concurrency,tp_size,ttft_ms,tpot_ms\n"
    "agg,Qwen/Qwen3-32B,h200_sxm,trtllm,1000,100,8,2,100,10\n";

std::string changed(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

void write_inputs(const Scratch& s) {
  s.write("array.json", "[1, 2, 3]");
  s.write("cut.json", std::string(kConfig).substr(0, 60));
  s.write("unknown_family.json", R"({"model_type": "perceiver9", "d_model": 8})");
  s.write("plan.json", kPlan);
  s.write("newer.json", changed(kPlan, R"("version": 1)", R"("version": 99)"));
  s.write("other_schema.json", changed(kPlan, "drydock.plan", "other.plan"));
  s.write("unknown_field.json", changed(kPlan, "max_batch", "max_bach"));
  s.write("unknown_mode.json", changed(kPlan, "agg", "mixed"));
  s.write("wrong_roles.json", changed(kPlan, R"("mode": "agg")", R"("mode": "disagg")"));
  s.write("tp3.json", changed(kPlan, R"("tp": 2)", R"("tp": 3)"));
  s.write("tp0.json", changed(kPlan, R"("tp": 2)", R"("tp": 0)"));
  s.write("many.json", changed(kPlan, R"("tp": 2)", R"("tp": 1, "replicas": 1e300)"));
  s.write("no_model.json", changed(kPlan, "Qwen/Qwen3-32B", "Qwen/Qwen9-32B"));
  s.write("points.csv", kPoints);
  s.write("short_row.csv", changed(kPoints, ",8,2,100,10", ",8"));
  s.write("open_quote.csv", changed(kPoints, "\nagg,", "\n\"agg,"));
  s.write("text.db", "just some text, long enough to hold more than a header and nothing like a database");
  fs::create_directory(s.path() / "folder");
}

std::set<std::string> listing(const Scratch& s) {
  std::set<std::string> out;
  for (const auto& entry : fs::recursive_directory_iterator(s.path())) out.insert(entry.path().string());
  return out;
}

// The words of `line`; one that starts with '@' is a path in the scratch folder.
std::vector<std::string> arguments(const std::string& line, const Scratch& s) {
  std::istringstream stream(line);
  std::vector<std::string> out;
  for (std::string word; stream >> word;) out.push_back(word[0] == '@' ? s / word.substr(1) : word);
  return out;
}

struct Case {
  std::string line, names;
};

void check_refused(const std::vector<Case>& cases) {
  const Scratch s;
  write_inputs(s);
  const auto before = listing(s);
  for (const Case& c : cases) {
    const Run run = run_drydock(arguments(c.line, s));
    INFO("drydock " << c.line);
    INFO("stderr: " << run.err);
    CHECK(run.exit_code == 2);
    CHECK(run.out == "");
    CHECK(lines(run.err) == 1);
    CHECK(run.err.find(c.names) != std::string::npos);
    CHECK(listing(s) == before);
  }
}

}  // namespace

TEST_CASE("questions") {
  check_refused({
      {kQuestion + "--out @out --isl 40900", "--isl"},  // given twice
      {changed(kQuestion, "--isl 400", "--isl 40900") + "--out @out", "40960"},
      {changed(kQuestion, "Qwen3-32B", "Qwen3-23B") + "--out @out", "Qwen3-32B"},
      {kQuestion + "--out @out --ttft nan", "--ttft 'nan'"},
      {kQuestion + "--out @out --concurrency 1.5", "--concurrency '1.5'"},
      {kQuestion + "--out @plan.json", "plan.json"},
      {kQuestion + "--out @plan.json/below", "below"},
      {kQuestion + "--out /proc/drydock", "/proc/drydock"},
      {changed(kQuestion, "Qwen/Qwen3-32B", "@cut.json") + "--out @out", "cut.json"},
      {changed(kQuestion, "Qwen/Qwen3-32B", "@folder") + "--out @out", "config.json"},
      {changed(kQuestion, "Qwen/Qwen3-32B", "@unknown_family.json") + "--out @out", "unknown_family.json"},
      {kQuestion + "--out @out --db @folder", "folder"},
      {kQuestion + "--out @out --db @text.db", "text.db"},
      {kQuestion + "--out @out --calibration @array.json", "array.json"},
      {kQuestion + "--out @out --tttf 3", "--ttft"},
  });
}

TEST_CASE("plans") {
  check_refused({
      {"estimate --plan @plan.json --points @points.csv --out @p.csv", "--points"},
      {"estimate --plan @newer.json", "version"},
      {"estimate --plan @other_schema.json", "schema"},
      {"estimate --plan @unknown_field.json", "max_bach"},
      {"estimate --plan @unknown_mode.json", "mode"},
      {"estimate --plan @wrong_roles.json", "pools"},
      {"estimate --plan @tp3.json", "3"},
      {"estimate --plan @tp0.json", "tp"},
      {"estimate --plan @many.json", "replicas"},
      {"estimate --plan @no_model.json", "Qwen9-32B"},
      {"estimate --plan @plan.json --isl 0", "--isl"},
      {"estimate --plan @plan.json --isl 40960", "40960"},
      {"estimate --plan @plan.json --concurrency nan", "--concurrency"},
      {"estimate --plan @plan.json --rate 1 --concurrency 1", "--concurrency"},
      {"estimate --plan @plan.json --prefix-hit 1", "--prefix-hit"},
      {"estimate --plan @plan.json --rate 1e6", "--rate 1"},
      {"estimate --plan @plan.json --db @folder", "folder"},
  });
}

TEST_CASE("tables and databases") {
  check_refused({
      {"estimate --points @short_row.csv --out @p.csv", "line 2"},
      {"estimate --points @open_quote.csv --out @p.csv", "open_quote.csv"},
      {"estimate --points @folder --out @p.csv", "folder"},
      {"estimate --points @points.csv --out @folder", "folder"},
      {"estimate --points @points.csv --out @missing/p.csv", "missing"},
      {"validate --points @points.csv --db @text.db", "text.db"},
      {"db import --csv @points.csv --db @new.db", "points.csv"},
      {"db import --csv @missing.csv --db @new.db", "missing.csv"},
      {"db merge --db @new.db --from @missing.db", "missing.db"},
      {"db merge --db @new.db --from @text.db", "text.db"},
      {"db export --db @text.db --out @m.csv", "text.db"},
      {"db export --out @missing/m.csv", "missing"},
      {"support --db @text.db", "text.db"},
  });
}
