#pragma once
// From measurements to surfaces, and how far they miss what they have not seen.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/hardware.h"
#include "perfdb/database.h"
#include "perfdb/surface.h"

namespace drydock::perfdb {

struct Sample {
  core::Op op;
  double latency_us = 0;
};

// Errors of one surface on shapes held out of its fit.
struct FitReport {
  std::string system, backend, version;
  core::OpKind kind{};
  core::Dtype dtype{}, kv_dtype{};
  Variant variant{};
  int64_t samples = 0;
  std::vector<float> log_errors;  // log(measured / predicted), each sample predicted by the fit without its fold
  double covered = 0;             // share of samples inside a band made without their fold
};

struct FitResult {
  std::vector<StoredSurface> surfaces;
  std::vector<FitReport> reports;  // one a surface
};

// Fits one surface per (kind, dtype, kv_dtype, variant) in `samples`, which are all of one system and backend.
// Method: the knots are extents that the samples have, thinned; the values minimise reweighted squares of the logarithm
// plus second and first differences along the axes. Five folds by a hash of the shape give the held-out errors, whose
// deciles are the bands. Kinds without axes, groups over the network and those under 16 samples are left out.
// Deterministic: the order of samples does not matter.
FitResult fit_surfaces(std::vector<Sample> samples, const core::Hardware& hardware, const std::string& backend,
                       const std::string& version);

// Text of a variant as StoredSurface::variant holds it: "128,0,0"; and back. Throws core::Error naming the text.
std::string variant_text(const Variant& variant);
Variant parse_variant(std::string_view text);

}  // namespace drydock::perfdb
