#include "generators/engine_version.h"

#include <charconv>
#include <optional>

#include "core/error.h"

namespace drydock::generators {
namespace {

std::optional<EngineVersion> parse_version(std::string_view text) {
  if (text.starts_with("v")) text.remove_prefix(1);
  EngineVersion out;
  for (size_t i = 0; i < out.part.size(); ++i) {
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), out.part[i]);
    if (status != std::errc{} || out.part[i] < 0) return i >= 2 ? std::optional(out) : std::nullopt;
    text.remove_prefix(static_cast<size_t>(end - text.data()));
    if (!text.starts_with('.')) return i >= 1 ? std::optional(out) : std::nullopt;
    text.remove_prefix(1);
  }
  return out;
}

}  // namespace

std::string text(const EngineVersion& v) {
  return std::to_string(v.part[0]) + "." + std::to_string(v.part[1]) + "." + std::to_string(v.part[2]);
}

EngineVersion engine_version(const Request& request, const CheckedVersions& checked) {
  const std::string asked = request.set("engine-version", "");
  if (asked.empty()) return checked.newest;
  const auto version = parse_version(asked);
  const std::string range = text(checked.oldest) + " to " + text(checked.newest);
  if (!version)
    throw core::Error("--set engine-version='" + asked.substr(0, 40) + "': want a release of " +
                      std::string(checked.engine) + " such as " + text(checked.newest));
  EngineVersion last = checked.newest;
  if (checked.engine != kSglangVersions.engine) last.part[2] = 1 << 20;
  if (*version < checked.oldest || *version > last)
    throw core::Error(
        "--set engine-version=" + text(*version) + ": the flags of " + std::string(checked.engine) +
        " were checked for " + range +
        (*version > last ? "; a later one may have renamed them" : "; earlier ones lack some that plans need"));
  return *version;
}

}  // namespace drydock::generators
