#pragma once
// Campaigns of `drydock profile` on simulated silicon.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "perfdb/database.h"
#include "tests/run.h"

namespace drydock::tests {

using Arguments = std::vector<std::string>;

inline const char* const kProfiledModel =
    R"({"model_type":"llama","hidden_size":64,"vocab_size":1000,"max_position_embeddings":4096,"num_hidden_layers":2,)"
    R"("num_attention_heads":4,"num_key_value_heads":2,"intermediate_size":128})";

// A campaign on simulated silicon that ends after a few points a family.
inline Arguments simulated(const Scratch& scratch, const std::string& db) {
  return {"profile",
          "--model",
          scratch.write("model.json", kProfiledModel),
          "--target",
          "simulated",
          "--system",
          "h200_sxm",
          "--budget",
          "20s",
          "--target-error",
          "45%",
          "--db",
          db};
}

inline Arguments with(Arguments all, const Arguments& more) {
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

inline nlohmann::json profile_json(const Run& run) {
  CAPTURE(run.err);
  REQUIRE(run.exit_code == 0);
  return nlohmann::json::parse(run.out);
}

inline void profile_refused(const Arguments& arguments, const std::string& names) {
  const Run run = run_drydock(arguments);
  CAPTURE(run.err);
  CAPTURE(names);
  CHECK(run.exit_code == 2);
  CHECK(run.out == "");
  CHECK(lines(run.err) == 1);
  CHECK(run.err.starts_with("drydock: "));
  CHECK(run.err.find(names) != std::string::npos);
}

inline int64_t rows(const std::string& db) {
  int64_t count = 0;
  perfdb::Database::open(db, perfdb::Access::read).read({}, [&](const auto&) { ++count; });
  return count;
}

}  // namespace drydock::tests
