#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <sstream>
#include <valijson/adapters/nlohmann_json_adapter.hpp>
#include <valijson/schema.hpp>
#include <valijson/schema_parser.hpp>
#include <valijson/validator.hpp>

#include "core/file.h"
#include "core/json.h"
#include "core/random.h"
#include "perfdb/database.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::tests;
namespace fs = std::filesystem;

namespace {

using Arguments = std::vector<std::string>;
using perfdb::Measurement;
using perfdb::Origin;

const Origin kOrigin = {"h200_sxm", "vllm", "1.0", "H200", "570", "1980", "cublas", "2026-01-01", "test"};
const char* const kKernels[] = {"cublas", "deepgemm", "cutlass", "triton", "marlin"};

// Five families of 12 GEMMs with 0.5 % of noise; those of `kernel` take `factor` times as long.
std::vector<Measurement> run_of(uint64_t seed, const std::string& kernel = "", double factor = 1,
                                Origin origin = kOrigin) {
  core::Random random(seed);
  std::vector<Measurement> out;
  for (const char* one : kKernels)
    for (int64_t m = 1; m <= 12; ++m) {
      origin.kernel = one;
      const double us = static_cast<double>(9 + m) * (kernel == one ? factor : 1) * (1 + 0.005 * random.normal());
      const auto op = core::make_op(core::OpKind::gemm, core::Dtype::fp8, core::Dtype::fp8, {m, 4096, 4096});
      out.push_back({op, origin, us, 0.02 * us, 20});
    }
  return out;
}

void fill(const std::string& file, const std::vector<Measurement>& rows) {
  fs::remove(file);
  perfdb::Database database = perfdb::Database::open(file, perfdb::Access::create);
  database.write([&](const auto& add) {
    for (const Measurement& m : rows) add(m);
  });
}

struct Bench {
  Scratch scratch;
  std::string base = scratch / "base.db", now = scratch / "new.db";

  explicit Bench(const std::vector<Measurement>& after = run_of(2)) {
    fill(base, run_of(1));
    fill(now, after);
  }
  Run run(const Arguments& more = {}) const {
    Arguments all = {"db", "diff", base, now};
    all.insert(all.end(), more.begin(), more.end());
    return run_drydock(all);
  }
  core::Json json(Arguments more, int exit_code) const {
    more.push_back("--json");
    const Run r = run(more);
    CAPTURE(r.err);
    REQUIRE(r.exit_code == exit_code);
    CHECK(r.err == "");
    return core::parse_json(r.out, "stdout");
  }
};

void refused(const Arguments& arguments, int exit_code, const std::string& names) {
  const Run run = run_drydock(arguments);
  CAPTURE(run.err);
  CHECK(run.exit_code == exit_code);
  CHECK(run.out == "");
  CHECK(lines(run.err) == 1);
  CHECK(run.err.starts_with("drydock: "));
  CHECK(run.err.find(names) != std::string::npos);
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

size_t widest(const std::string& text) {
  size_t most = 0;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) most = std::max(most, line.size());
  return most;
}

bool as_its_schema(const core::Json& document) {
  const auto plain = [](const std::string& text) { return nlohmann::json::parse(text); };
  const nlohmann::json schema_json =
      plain(core::read_file(fs::path(DRYDOCK_SOURCE_DIR) / "docs/schema/db_diff.schema.json"));
  const nlohmann::json json = plain(document.dump());
  valijson::Schema schema;
  valijson::SchemaParser(valijson::SchemaParser::kDraft7)
      .populateSchema(valijson::adapters::NlohmannJsonAdapter(schema_json), schema);
  return valijson::Validator().validate(schema, valijson::adapters::NlohmannJsonAdapter(json), nullptr);
}

}  // namespace

TEST_CASE("db diff: the same code twice is clean") {
  const Bench bench;
  const Run run = bench.run();
  CHECK(run.exit_code == 0);
  CHECK(run.err == "");
  CHECK(run.out.starts_with("No regression: 0 families of 5 and 0 ops of 60 slower by 3% or more beyond noise\n"));
  CHECK(run.out == bench.run().out);
}

TEST_CASE("db diff: a slower family is a regression, and first") {
  const Bench bench(run_of(2, "cutlass", 1.1));
  const Run run = bench.run();
  CHECK(run.exit_code == 1);
  CHECK(run.out.starts_with("REGRESSION: 1 family of 5 and "));
  CHECK(widest(run.out) <= 100);
  const core::Json json = bench.json({}, 1);
  CHECK(as_its_schema(json));
  CHECK(json["regression"] == true);
  CHECK(json["paired"] == 60);
  CHECK(json["families"][0]["kernel"] == "cutlass");
  CHECK(json["families"][0]["verdict"] == "slower");
  // The median of 12 ratios with 0.7 % of noise each is known to 0.25 %.
  CHECK(json["families"][0]["change"].get<double>() == doctest::Approx(0.1).epsilon(0.1));
  CHECK(json["families"][1]["verdict"] == "unchanged");
  CHECK(bench.json({"--threshold", "20%"}, 0)["regression"] == false);
}

TEST_CASE("db diff: a faster family is told and is none") {
  const Bench bench(run_of(2, "triton", 0.8));
  const Run run = bench.run();
  CHECK(run.exit_code == 0);
  CHECK(has(run.out, "; 1 family faster\n"));
}

TEST_CASE("db diff: 100 columns, whatever names are like") {
  Origin origin = kOrigin;
  origin.kernel = std::string(300, 'k');
  std::vector<Measurement> base, now;
  for (int64_t m = 1; m < 20; ++m) {
    const int64_t huge = 1'000'000'000'000;
    const core::Op op = core::make_op(core::OpKind::prefill_attention, core::Dtype::bf16, core::Dtype::fp8,
                                      {m, huge, huge, huge, huge, huge, huge});
    base.push_back({op, origin, 10, 0, 0});
    now.push_back({op, origin, 100, 0, 0});
  }
  const Scratch scratch;
  fill(scratch / "a", base);
  fill(scratch / "b", now);
  fs::current_path(scratch.path());
  const Run run = run_drydock({"db", "diff", "a", "b"});
  fs::current_path("/");
  CHECK(run.exit_code == 1);
  CHECK(widest(run.out) <= 100);
}

TEST_CASE("db diff: JUnit and Markdown") {
  std::vector<Measurement> before = run_of(1), after = run_of(2, "cutlass", 1.1);
  for (std::vector<Measurement>* rows : {&before, &after})
    for (Measurement& m : *rows)
      if (m.origin.kernel == "cutlass") m.origin.kernel = "a<b>&\"c|`d\xff";
  const Bench bench;
  fill(bench.base, before);
  fill(bench.now, after);
  const std::string xml_file = bench.scratch / "out.xml", page_file = bench.scratch / "out.md";
  const Run run = bench.run({"--junit", xml_file, "--markdown", page_file});
  CHECK(run.exit_code == 1);
  const std::string xml = core::read_file(xml_file), page = core::read_file(page_file);
  CHECK(xml.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>"));
  CHECK(has(xml, "tests=\"6\" failures=\"1\" errors=\"0\""));
  CHECK(has(xml, "<testcase classname=\"h200_sxm\" name=\"everything\">"));
  CHECK(has(xml, "name=\"gemm/fp8 a&lt;b>&amp;&quot;c|`d\xEF\xBF\xBD\""));
  CHECK(has(xml, "<failure message=\"+"));
  CHECK(page.starts_with("### Kernel times\n\n**REGRESSION: 1 family of 5"));
  CHECK(has(page, "| `gemm/fp8 a<b>&\"c\\|'d\xff` | 12 | +"));
}

TEST_CASE("db diff: other GPU, driver or clocks are not comparable unless allowed") {
  Origin origin = kOrigin;
  origin.driver = "575";
  const Bench bench(run_of(2, "", 1, origin));
  const Arguments plain = {"db", "diff", bench.base, bench.now};
  const auto with = [&](const char* flag) {
    Arguments all = plain;
    all.push_back(flag);
    return all;
  };
  refused(plain, 4, "not comparable: driver '570' against '575' in 60 rows of h200_sxm");
  refused(with("--allow=gpu,clocks"), 4, "driver '570'");
  CHECK(run_drydock(with("--allow=driver")).exit_code == 0);
  const Run run = run_drydock(with("--allow"));
  CHECK(run.exit_code == 0);
  CHECK(has(run.out, "Allowed to differ: driver '570' against '575'"));
  const core::Json json = bench.json({"--allow"}, 0);
  CHECK(as_its_schema(json));
  CHECK(json["differences"][0]["field"] == "driver");
  refused(with("--allow=color"), 2, "--allow 'color'");
  refused(with("--allow=gpu,"), 2, "--allow 'gpu,'");
}

TEST_CASE("db diff: rows of one side are listed, and nothing in common is not comparable") {
  Origin other = kOrigin;
  other.system = "b200_sxm";
  std::vector<Measurement> after = run_of(2);
  const Measurement extra{after[0].op, other, 10, 0.1, 20};
  after.push_back(extra);
  after.erase(after.begin());
  const core::Json json = Bench(after).json({}, 0);
  CHECK(as_its_schema(json));
  CHECK(json["paired"] == 59);
  REQUIRE(json["only_base"].size() == 1);
  CHECK(json["only_base"][0]["kernel"] == "cublas");
  CHECK(json["only_new"][0]["system"] == "b200_sxm");
  const Bench nothing({extra});
  refused({"db", "diff", nothing.base, nothing.now}, 4, "no op of the same system, backend and kernel");
}

TEST_CASE("db diff: what a plan loses end to end") {
  const Bench bench;
  const std::string plan = bench.scratch.write("plan.json", R"({"schema": "drydock.plan", "version": 1,
    "model": "Qwen/Qwen3-8B", "precision": "fp8", "backend": "vllm", "mode": "agg", "pools": [{"role": "worker",
    "system": "h200_sxm", "tp": 1, "replicas": 1, "max_batch": 64, "max_tokens": 8192}],
    "workload": {"isl": 500, "osl": 50, "rate": 1}, "slo": {}})");
  // One request at a time decodes with m = 1; these are all GEMMs of a layer of the model.
  std::vector<Measurement> before = run_of(1), after = run_of(2);
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{6144, 4096}, {4096, 4096}, {24576, 4096}, {4096, 12288}}) {
    const auto op = core::make_op(core::OpKind::gemm, core::Dtype::fp8, core::Dtype::fp8, {1, n, k});
    before.push_back({op, kOrigin, 20, 0.2, 20});
    after.push_back({op, kOrigin, 40, 0.2, 20});
  }
  fill(bench.base, before);
  fill(bench.now, after);
  const core::Json json = bench.json({"--plan", plan, "--rate", "0.1"}, 1);
  CHECK(as_its_schema(json));
  const core::Json& tpot = json["end_to_end"]["tpot_mean_ms"];
  // 36 layers with four GEMMs each, 20 us more: 2.9 ms at most; the calibration scales kernel times, and some steps
  // decode two requests.
  const double more = tpot["after"].get<double>() - tpot["before"].get<double>();
  MESSAGE("TPOT ", tpot["before"].get<double>(), " ms and ", more, " ms more");
  CHECK(more > 1.4);
  CHECK(more < 3);
  const Run run = bench.run({"--plan", plan, "--rate", "0.1"});
  CHECK(has(run.out, "TPOT mean ms"));
  CHECK(widest(run.out) <= 100);
  refused({"db", "diff", bench.base, bench.now, "--plan", plan, "--rate", "-1"}, 2, "--rate");
  refused({"db", "diff", bench.base, bench.now, "--plan", bench.scratch / "none.json"}, 2, "none.json");
  const std::string other = bench.scratch.write("other.json", R"({"schema": "drydock.plan", "version": 1,
    "model": "Qwen/Qwen3-8B", "precision": "fp8", "backend": "trtllm", "mode": "agg", "pools": [{"role": "worker",
    "system": "h200_sxm", "tp": 1, "replicas": 1, "max_batch": 64, "max_tokens": 8192}],
    "workload": {"isl": 500, "osl": 50, "rate": 1}, "slo": {}})");
  refused({"db", "diff", bench.base, bench.now, "--plan", other}, 2, "no op in common");
}

TEST_CASE("db diff: bad input") {
  const Bench bench;
  const Scratch& s = bench.scratch;
  const std::string text = s.write("text.db", "this is no database, it is a line of text"), link = s / "link.db";
  fs::create_symlink(bench.base, link);
  fill(s / "empty.db", {});
  refused({"db", "diff"}, 2, "required");
  refused({"db", "diff", bench.base}, 2, "new");
  refused({"db", "diff", s / "none.db", bench.now}, 2, "none.db");
  refused({"db", "diff", bench.base, s / "none.db"}, 2, "none.db");
  refused({"db", "diff", bench.base, s.path().string()}, 2, "folder");
  refused({"db", "diff", bench.base, text}, 2, "text.db");
  refused({"db", "diff", bench.base, s / "empty.db"}, 2, "holds no measurements");
  refused({"db", "diff", s / "empty.db", bench.now}, 2, "holds no measurements");
  refused({"db", "diff", bench.base, bench.base}, 2, "same file");
  refused({"db", "diff", bench.base, link}, 2, "same file");
  for (const char* value : {"", "3", "%", "0%", "0.05%", "-3%", "101%", "nan%", "inf%", "3 %", "3%%", "1e99%", "x"})
    refused({"db", "diff", bench.base, bench.now, "--threshold", value}, 2, "--threshold");
  refused({"db", "diff", bench.base, bench.now, "--rate", "3"}, 2, "--rate");
  refused({"db", "diff", bench.base, bench.now, "--jnuit", "x"}, 2, "did you mean '--junit'?");
  const std::string before = core::read_file(bench.base);
  refused({"db", "diff", bench.base, bench.now, "--junit", bench.base}, 2, "one of the databases");
  refused({"db", "diff", bench.base, bench.now, "--markdown", link}, 2, "one of the databases");
  CHECK(core::read_file(bench.base) == before);
  refused({"db", "diff", bench.base, bench.now, "--junit", s / "x", "--markdown", s / "x"}, 2, "--markdown");
  for (const char* flag : {"--junit", "--markdown"}) {
    refused({"db", "diff", bench.base, bench.now, flag, s / "no/such/out"}, 2, "can't be written");
    refused({"db", "diff", bench.base, bench.now, flag, s.path().string()}, 2, "can't be written");
  }
  size_t files = 0;
  for (const auto& entry : fs::directory_iterator(s.path())) files += entry.path().string() != "";
  CHECK(files == 5);  // base, new, text, link, empty: nothing was left behind
}
