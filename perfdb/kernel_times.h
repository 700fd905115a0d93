#pragma once
// The only way to ask how long an op takes.
#include <memory>
#include <string>
#include <string_view>

#include "core/estimate.h"
#include "core/hardware.h"
#include "core/op.h"
#include "perfdb/database.h"

namespace drydock::perfdb {

struct KernelTime {
  double latency_us = 0, low_us = 0, high_us = 0;  // one launch, launch overhead excluded
  core::Provenance provenance = core::Provenance::analytic;
};

// Times of one backend's kernels on one system. Safe to read from many threads.
class KernelTimes {
 public:
  // Loads what the database has for (hardware.name, backend): measurements for exact hits, surfaces for the rest.
  // A system without surfaces borrows those of the nearest architecture over its own roofline, with a wider band.
  // Throws core::Error as refuse_simulated (perfdb/simulated.h) does.
  KernelTimes(const Database& database, const core::Hardware& hardware, std::string_view backend);
  // No database: the roofline with stated efficiencies, provenance analytic.
  explicit KernelTimes(const core::Hardware& hardware);
  KernelTimes(KernelTimes&&) noexcept;
  KernelTimes& operator=(KernelTimes&&) noexcept;
  ~KernelTimes();

  // Every op of a legal plan has an answer: 0 < low <= latency <= high, or all 0 for one that does nothing (an extent
  // of 0, a group of one). Throws core::Error at the first op that asks for a surface that does not decode.
  KernelTime of(const core::Op& op) const;

  const core::Hardware& hardware() const;
  std::string_view version() const;        // of the backend whose tables answer; empty when analytic
  std::string_view borrowed_from() const;  // the system whose surfaces answer, when not its own

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace drydock::perfdb
