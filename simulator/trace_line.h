#pragma once
// One line of a request trace, in the formats that are published.
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace drydock::simulator {

enum class TraceFormat {
  mooncake,  // JSON lines: timestamp [ms], input_length, output_length, hash_ids (one per 512 tokens)
  azure,     // CSV: TIMESTAMP (2023-11-16 18:17:03.9799600), ContextTokens, GeneratedTokens
  burstgpt,  // CSV: Timestamp [s], Request tokens, Response tokens, and columns that are not read
};

inline constexpr int64_t kMooncakeBlockTokens = 512;
inline constexpr int64_t kTicksPerUs = 10;

// "mooncake", "azure", "burstgpt". Throws core::Error naming `origin` on another.
TraceFormat parse_trace_format(std::string_view name, std::string_view origin);

struct TraceRecord {
  int64_t ticks = 0;  // of 100 ns, from wherever the trace counts
  std::string time;   // as the line has it
  int64_t prompt_tokens = 0, output_tokens = 0;
  std::vector<uint64_t> hashes;
};

// All errors are core::Error that tell what is wrong with the line; the caller puts file and line before that.
class TraceLineParser {
 public:
  // `first` is the first line of the file; without a format it is guessed from it.
  // Throws when no format fits, or columns are missing.
  TraceLineParser(std::optional<TraceFormat> format, std::string_view first);

  TraceFormat format() const { return format_; }
  bool has_header() const { return format_ != TraceFormat::mooncake; }

  // Throws when a field is missing, not what it should be or out of range: lengths from 1 to kMostTokens, no more
  // hashes than the prompt has blocks.
  void parse(std::string_view line, TraceRecord& record) const;

 private:
  void read_header(std::string_view header);
  void parse_csv(std::string_view line, TraceRecord& record) const;

  TraceFormat format_ = TraceFormat::mooncake;
  size_t columns_ = 0;             // of the header
  std::array<size_t, 3> at_ = {};  // time, prompt, output among them
};

}  // namespace drydock::simulator
