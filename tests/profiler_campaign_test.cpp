#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "models/catalogue.h"
#include "perfdb/kernel_times.h"
#include "perfdb/surface.h"
#include "profiler/campaign.h"
#include "profiler/simulated_device.h"
#include "profiler/worker_messages.h"
#include "tests/effort.h"
#include "tests/run.h"

using namespace drydock;
using namespace drydock::profiler;
using tests::Scratch;

namespace {

const models::System& campaign_h200() {
  static const models::System system =
      usual_silicon(models::read_system(DRYDOCK_SOURCE_DIR "/models/data/systems/h200_sxm.json")).system;
  return system;
}

// A model of a billion parameters, dense.
std::vector<Family> families(const Sizes& sizes = {}) {
  static const models::Architecture model = models::parse_config(
      R"({"model_type":"llama","hidden_size":2048,"vocab_size":32000,"max_position_embeddings":8192,)"
      R"("num_hidden_layers":16,"num_attention_heads":16,"num_key_value_heads":4,"intermediate_size":8192})",
      "", "test");
  std::vector<std::string> reasons;
  return work_list(deployments(model, models::choose_precision(model, "bf16"), sizes, campaign_h200(), reasons),
                   {4096, 8192, 64}, campaign_h200());
}

Opener simulated(std::vector<Silicon::Fault> faults = {}, int64_t throttle_every = 0) {
  Silicon silicon = usual_silicon(campaign_h200());
  silicon.faults = std::move(faults);
  silicon.throttle_every = throttle_every;
  return [silicon]() -> std::unique_ptr<Device> { return std::make_unique<SimulatedDevice>(silicon); };
}

StopRule campaign_rule() {
  StopRule rule;
  rule.most_samples = 40;
  rule.most_seconds = 0.2;
  return rule;
}

CampaignOptions usual() {
  CampaignOptions out;
  out.budget_s = 60;
  out.rule = campaign_rule();
  out.most_points = 40;
  return out;
}

struct Rig {
  explicit Rig(const Opener& open, const std::atomic<bool>* stop = nullptr)
      : file(scratch / "out.db"),
        database(perfdb::Database::open(file, perfdb::Access::create)),
        worker(open, campaign_rule(), stop) {}
  CampaignReport run(const CampaignOptions& options, std::vector<Family> work,
                     const std::function<void(const Progress&)>& progress = {},
                     const std::atomic<bool>* stop = nullptr) {
    return run_campaign(database, worker, campaign_h200(), std::move(work), options, progress, stop);
  }
  int64_t rows() const {
    int64_t count = 0;
    database.read({}, [&](const perfdb::Measurement& m) {
      CHECK(m.latency_us ==
            doctest::Approx(true_us(m.op, campaign_h200())).epsilon(0.02));  // 1 % noise, 7 samples at least
      CHECK(m.samples >= 7);
      ++count;
    });
    return count;
  }
  Scratch scratch;
  std::string file;
  perfdb::Database database;
  Worker worker;
};

// What a surface of whole prompts alone says: this one where no context lies before the new tokens.
perfdb::StoredSurface without_context(perfdb::StoredSurface stored) {
  const int axis = perfdb::context_axis(stored.kind);
  if (axis < 0) return stored;
  const perfdb::Surface full = perfdb::decode(stored.body, "test");
  REQUIRE(full.axes == axis + 1);
  const auto last = static_cast<size_t>(axis);
  perfdb::Surface cut = full;
  cut.axes = axis;
  cut.knots[last].clear();
  cut.values.clear();
  cut.supported.clear();
  for (size_t i = 0; i < full.values.size(); i += full.knots[last].size()) {
    cut.values.push_back(full.values[i]);
    cut.supported.push_back(full.supported[i]);
  }
  stored.body = perfdb::encode(cut);
  return stored;
}

// Mean |look-up / truth - 1| of all chunks after cached tokens that plans ask for.
double error_of_chunks(const perfdb::Database& database) {
  const perfdb::KernelTimes times(database, campaign_h200().hardware, kBackend);
  double sum = 0, count = 0;
  for (const Family& family : families())
    for (const Candidate& c : family.candidates) {
      if (c.op.kind != core::OpKind::prefill_attention || c.op.shape[2] == 0) continue;
      sum += std::abs(times.of(c.op).latency_us / true_us(c.op, campaign_h200()) - 1);
      count += 1;
    }
  return sum / count;
}

}  // namespace

TEST_CASE("a campaign meets its target, and the database answers") {
  Rig rig(simulated());
  CampaignOptions options = usual();
  options.most_points = tests::kLighter > 1 ? 100 : 400;
  const CampaignReport report = rig.run(options, families());
  CHECK(report.failed.empty());
  CHECK(report.refused.empty());
  CHECK(rig.rows() == report.points);
  if (tests::kLighter > 1) return;
  CHECK(report.ending == Ending::target_met);
  for (const FamilyReport& f : report.families)
    MESSAGE(f.name, ": ", f.points, " of ", f.candidates, ", error ", f.error);
  const perfdb::KernelTimes times(rig.database, campaign_h200().hardware, kBackend);
  CHECK(times.version() == "simulated-1");
  double error = 0, ops = 0, inside = 0;
  core::Random random(3);
  for (const Family& family : families())
    for (int i = 0; i < 200; ++i) {
      const core::Op& op =
          family.candidates[static_cast<size_t>(random.integer(0, std::ssize(family.candidates) - 1))].op;
      const perfdb::KernelTime t = times.of(op);
      const double truth = true_us(op, campaign_h200());
      CHECK((t.provenance == core::Provenance::interpolated || t.provenance == core::Provenance::measured));
      error += std::abs(t.latency_us / truth - 1);
      inside += t.low_us <= truth && truth <= t.high_us;
      ++ops;
    }
  MESSAGE(report.points, " points, mean error of look-ups ", error / ops, ", in band ", inside / ops);
  // The target is an expectation, and the lattice adds its own; bands are meant to hold 80 %.
  CHECK(error / ops < 0.07);
  CHECK(inside / ops > 0.6);
  // Surfaces had no axis for what lies before a chunk once; the same rows with such surfaces show what it is worth.
  const Scratch scratch;
  perfdb::Database before = perfdb::Database::open(scratch / "before.db", perfdb::Access::create);
  before.merge(rig.file);
  std::vector<perfdb::StoredSurface> cut;
  for (const perfdb::StoredSurface& s : rig.database.surfaces("", "")) cut.push_back(without_context(s));
  before.write(cut);
  const double with = error_of_chunks(rig.database), without = error_of_chunks(before);
  MESSAGE("mean error of chunks after cached tokens: ", with, " with an axis for it, ", without, " without");
  CHECK(with < 0.10);
  CHECK(without > 2 * with);
}

TEST_CASE("the same campaign again measures nothing twice") {
  Rig rig(simulated());
  CampaignOptions options = usual();
  options.most_points = 30;
  const CampaignReport first = rig.run(options, families());
  CHECK(first.points == 30);
  CHECK(first.ending == Ending::out_of_budget);
  const CampaignReport second = rig.run(options, families());
  CHECK(second.reused == 30);
  CHECK(second.points == 30);
  CHECK(rig.rows() == 60);
  CHECK(second.error < first.error);
}

TEST_CASE("crashes, hangs and errors cost one op each and are told") {
  // One shape each of GEMMs that the first points take; every context of 8192 hangs.
  Rig rig(simulated({{"n=3072", Failure::crash},
                     {"n=16384", Failure::error},
                     {"k=8192", Failure::out_of_memory},
                     {"decode_attention", Failure::none}}));
  CampaignOptions options = usual();
  const CampaignReport report = rig.run(options, families());
  CHECK(report.points == 40);
  CHECK(!report.failed.empty());
  bool crashed = false, failed = false;
  for (const FailedOp& op : report.failed) {
    crashed |= op.op.find("n=3072") != std::string::npos && op.reason.find("exit code 139") != std::string::npos;
    failed |= op.reason == "simulated failure of a launch" || op.reason == "out of memory";
  }
  CHECK(crashed);
  CHECK(failed);
  CHECK(rig.rows() == report.points);
}

TEST_CASE("an op that hangs is given up in time") {
  Rig rig(simulated({{"elementwise", Failure::hang}}));
  const core::Op op = core::parse_op_key("elementwise/bf16/tokens=8,read_bytes=12,written_bytes=4");
  const Worker::Outcome outcome = rig.worker.measure(op, 0.3);
  CHECK(outcome.status == Worker::Status::failed);
  CHECK(outcome.reason == "no answer in 0 s");
  // A fresh process has taken its place.
  const core::Op other = core::parse_op_key("gemm/bf16/m=8,n=1024,k=1024");
  CHECK(rig.worker.measure(other, 10).status == Worker::Status::measured);
}

TEST_CASE("a family that always fails is given up, the rest goes on") {
  Rig rig(simulated({{"prefill_attention", Failure::error}}));
  const CampaignReport report = rig.run(usual(), families());
  CHECK(report.failed.size() == 5);
  CHECK(report.points == 40);
  for (const FamilyReport& f : report.families)
    if (f.name.starts_with("prefill")) CHECK(f.points == 0);
}

TEST_CASE("a device that is lost ends the campaign with what there is") {
  // No process can open it after the first product of that width.
  Rig rig(simulated({{"n=16384", Failure::lost}}));
  const CampaignReport report = rig.run(usual(), families());
  CHECK(report.ending == Ending::device_lost);
  CHECK(report.lost == "the simulated device is lost; it can't be opened again");
  REQUIRE(report.failed.size() == 1);
  CHECK(report.failed[0].op.find("n=16384") != std::string::npos);
  CHECK(report.points < 40);
  CHECK(rig.rows() == report.points);
  CHECK(report.parts.empty());  // no fresh process is asked to split ops
  CHECK_THROWS_AS(rig.worker.restart(), core::Error);
}

TEST_CASE("an interruption keeps what was measured") {
  std::atomic<bool> stop{false};
  Rig rig(simulated(), &stop);
  const CampaignReport report = rig.run(
      usual(), families(), [&](const Progress& p) { stop = p.points == 12; }, &stop);
  CHECK(report.ending == Ending::interrupted);
  CHECK(report.points == 12);
  CHECK(rig.rows() == 12);
}

TEST_CASE("samples under throttling do not count") {
  // Of ten samples the last is 30 % slower, and says so.
  Rig rig(simulated({}, 10));
  CampaignOptions options = usual();
  options.most_points = 10;
  const CampaignReport report = rig.run(options, families());
  CHECK(report.throttled > 0);
  CHECK(rig.rows() == 10);
}

TEST_CASE("rows say which kernel was timed, and a campaign goes on whatever it was") {
  Rig rig(simulated());
  CampaignOptions options = usual();
  const CampaignReport report = rig.run(options, families());
  int64_t decoding = 0;
  std::vector<perfdb::Measurement> rows;
  rig.database.read({}, [&](const perfdb::Measurement& m) {
    const bool decodes = m.op.kind == core::OpKind::decode_attention;
    CHECK(m.origin.kernel == (decodes ? "attend+combine" : "law"));
    decoding += decodes;
    rows.push_back(m);
  });
  CHECK(decoding > 3);
  // Ops of several kernels are split: the shortest, one in the middle, the longest.
  REQUIRE(report.parts.size() == 3);
  CHECK(report.no_parts == "");
  for (const OpParts& split : report.parts) {
    CHECK(split.op.starts_with("decode_attention/"));
    CHECK(split.parts == std::vector<KernelPart>{{"attend", 0.9}, {"combine", 0.1}});
  }
  // Rows of another day and another kernel count as measured; those of another driver do not.
  const Scratch scratch;
  perfdb::Database other = perfdb::Database::open(scratch / "other.db", perfdb::Access::create);
  for (size_t i = 0; i < rows.size(); ++i) {
    rows[i].origin.date = "2001-01-01";
    rows[i].origin.kernel = "another";
    if (i == 0) rows[i].origin.driver = "another";
  }
  other.write([&](const auto& add) {
    for (const perfdb::Measurement& m : rows) add(m);
  });
  options.most_points = 1;
  const CampaignReport next = run_campaign(other, rig.worker, campaign_h200(), families(), options, {}, nullptr);
  CHECK(next.reused == std::ssize(rows) - 1);
}

TEST_CASE("energy is told op by op") {
  Rig rig(simulated());
  CampaignOptions options = usual();
  options.most_points = 10;
  const CampaignReport report = rig.run(options, families());
  REQUIRE(report.energy.size() == 10);
  for (const OpEnergy& e : report.energy)  // noise of the time alone: 1 %, seven samples at least
    CHECK(e.joules == doctest::Approx(campaign_h200().power_w * e.us * 1e-6).epsilon(0.02));
}

TEST_CASE("a split that fails costs the campaign nothing") {
  struct Broken : SimulatedDevice {
    using SimulatedDevice::SimulatedDevice;
    std::vector<KernelPart> parts(const core::Op&) override { throw core::Error("no tracer"); }
  };
  Rig rig([]() -> std::unique_ptr<Device> { return std::make_unique<Broken>(usual_silicon(campaign_h200())); });
  const CampaignReport report = rig.run(usual(), families());
  CHECK(report.points == 40);
  CHECK(report.surfaces > 0);
  CHECK(report.parts.empty());
  CHECK(report.no_parts == "no tracer");
}

TEST_CASE("a budget of time is kept") {
  Rig rig(simulated());
  CampaignOptions options = usual();
  options.most_points = 0;
  options.target_error = 1e-4;  // never
  options.budget_s = 2;
  const CampaignReport report = rig.run(options, families());
  CHECK(report.ending == Ending::out_of_budget);
  CHECK(report.seconds < 2 * 5 * tests::kLighter);  // the last refit and the surfaces come after, on a busy core
}

TEST_CASE("a device that can't be opened is told in one line") {
  const Opener none = []() -> std::unique_ptr<Device> { throw core::Error("no such device"); };
  CHECK_THROWS_WITH_AS(Worker(none, campaign_rule()), "no such device", core::Error);
  const Opener dies = []() -> std::unique_ptr<Device> { std::_Exit(7); };
  CHECK_THROWS_WITH_AS(Worker(dies, campaign_rule()),
                       "the measuring process ended while it opened the device: exit code 7", core::Error);
}

TEST_CASE("messages survive the pipe") {
  Measured m;
  m.summary = {1.5, 0.1, {1.4, 1.6, 0.96}, 12, 1, true, false};
  m.throttled = 3;
  m.seconds = 0.25;
  m.joules = 0.5;
  m.kernel = "a+b";
  const Message back = parse_message(measured_message(m));
  CHECK(back.status == "measured");
  CHECK(back.measured.summary.median == 1.5);
  CHECK(back.measured.summary.interval.high == 1.6);
  CHECK(back.measured.summary.drifts);
  CHECK(back.measured.throttled == 3);
  CHECK(*back.measured.joules == 0.5);
  CHECK(back.measured.kernel == "a+b");
  const std::vector<KernelPart> parts{{"a", 0.75}, {"b", 0.25}};
  CHECK(parse_message(parts_message(parts)).parts == parts);
  Identity i;
  i.gpu = "G \"P\" \xff U";  // what drivers call themselves
  i.warnings = {"a", "b"};
  CHECK(parse_message(hello_message(i)).identity.warnings.size() == 2);
  CHECK_THROWS_AS(parse_message("{}"), core::Error);
  CHECK_THROWS_AS(parse_message("not json"), core::Error);
}
