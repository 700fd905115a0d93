#pragma once
// Which fitted surface answers for which op, substitutes included.
#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/hardware.h"
#include "perfdb/database.h"
#include "perfdb/surface.h"

namespace drydock::perfdb {

struct Choice {
  const Surface* surface = nullptr;  // null: no table says anything about such an op
  float doubt = 0;     // half-width to add to the band for what the surface was not made for, in logarithm
  bool exact = false;  // made for this system, backend, formats and variant
  Variant variant{};   // the surface's
};

// Safe to read from many threads. Surfaces are decoded when they are first asked for: a question asks for few of them.
// Moving keeps them where they are.
class SurfaceSet {
 public:
  SurfaceSet() = default;

  // Takes the surfaces of `system`, or those of the system nearest to `hardware` when it has none.
  // Where `backend` lacks a kind or format, in this order: a close format of its own, another backend's, any format.
  SurfaceSet(const Database& database, const core::Hardware& hardware, std::string_view backend);

  // Throws core::Error on a surface that does not decode.
  Choice find(const core::Op& op) const;

  const std::string& version() const { return version_; }
  const std::string& borrowed_from() const { return borrowed_from_; }

 private:
  class Entry {
   public:
    Entry(Variant v, std::string body, std::string origin)
        : variant(v), body_(std::move(body)), origin_(std::move(origin)) {}
    const Surface& surface();

    const Variant variant;

   private:
    std::once_flag decoded_;
    std::string body_, origin_;
    Surface surface_;
  };
  struct Group {  // entries of one kind and pair of formats
    std::vector<std::unique_ptr<Entry>> entries;
  };
  struct Slot {
    int16_t group = -1;
    float doubt = 0;
  };

  static size_t slot_index(core::OpKind kind, core::Dtype dtype, core::Dtype kv_dtype);
  void build(std::vector<StoredSurface>& stored, std::string_view backend, float doubt);
  int16_t add_group(const std::vector<StoredSurface*>& surfaces);

  std::array<Slot, core::kOpKinds * core::kDtypes * core::kDtypes> slots_{};
  std::vector<Group> groups_;
  std::string version_, borrowed_from_;
};

}  // namespace drydock::perfdb
